// Package store keeps the values of variables between two cells: the bytes that one program saved
// and the next one restores. It knows which variables are where, and nothing of what they mean.
package store

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"slices"
	"syscall"

	"crownest/internal/process"
	"crownest/internal/program"
)

const (
	// Files that one program is given; with more parts than that some are copied together.
	filesMax = 32
	// Smallest range that is given back to the system when it is no longer needed.
	holeBytesMin = 1 << 20
	// Parts that one program may save.
	partsMax = 1 << 20
)

// A Variable is what a program said about one when it saved it.
type Variable struct {
	Name    string `json:"name"`
	Preview string `json:"preview"`
	Size    *int   `json:"size"`
	Shape   []int  `json:"shape"`
}

// A part is variables that share memory.
type part struct {
	Offset    int64      `json:"offset"`
	Length    int64      `json:"length"`
	Variables []Variable `json:"variables"`
	Types     []string   `json:"types"`
	Functions []string   `json:"functions"`
	Statics   []string   `json:"statics"`

	file *generation
}

// A Lost value is one that could not be saved.
type Lost struct{ Name, What, Why string }

// Saved is what a program says when it has saved its variables.
type Saved struct {
	Parts    []*part `json:"parts"`
	Lost     []Lost  `json:"lost"`
	LostMore int     `json:"lost_more"`
	Failed   string  `json:"failed"`
}

// A generation is the file that one program wrote.
type generation struct {
	file *os.File
	uses int
}

// Store holds the parts.
type Store struct{ parts []*part }

// Parts describes what there is to whoever makes the next program.
func (s *Store) Parts() []program.Part {
	list := make([]program.Part, len(s.parts))
	for i, p := range s.parts {
		list[i] = program.Part{Types: p.Types, Functions: p.Functions, Statics: p.Statics}
		for _, v := range p.Variables {
			list[i].Variables = append(list[i].Variables, v.Name)
		}
	}
	return list
}

// Variable tells what is known of a variable's value.
func (s *Store) Variable(name string) (Variable, bool) {
	for _, p := range s.parts {
		for _, v := range p.Variables {
			if v.Name == name {
				return v, true
			}
		}
	}
	return Variable{}, false
}

// Functions lists all functions that values refer to.
func (s *Store) Functions() map[string]bool {
	found := map[string]bool{}
	for _, p := range s.parts {
		for _, name := range p.Functions {
			found[name] = true
		}
	}
	return found
}

// Parse reads what a program said about its state. A program may say anything; what does not fit
// its file is refused.
func Parse(text json.RawMessage, file *os.File) (*Saved, error) {
	saved := &Saved{}
	if err := json.Unmarshal(text, saved); err != nil {
		return nil, err
	}
	size := int64(0)
	if file != nil {
		info, err := file.Stat()
		if err != nil {
			return nil, err
		}
		size = info.Size()
	}
	if len(saved.Parts) > partsMax {
		return nil, io.ErrShortBuffer
	}
	for _, p := range saved.Parts {
		if p == nil || p.Offset < 0 || p.Length < 0 || p.Length > size || p.Offset > size-p.Length {
			return nil, io.ErrUnexpectedEOF
		}
	}
	return saved, nil
}

// Drop forgets a variable that was saved before it was made.
func (s *Saved) Drop(key string) {
	for _, p := range s.Parts {
		p.Variables = slices.DeleteFunc(p.Variables, func(v Variable) bool { return v.Name == key })
	}
}

// Replace puts new parts in the place of those that a program had restored. The store owns the
// file from now on.
func (s *Store) Replace(restored []int, saved *Saved, file *os.File) {
	s.remove(func(i int, _ *part) bool { return slices.Contains(restored, i) })
	if file == nil {
		return
	}
	g := &generation{file: file}
	for _, p := range saved.Parts {
		p.file = g
		g.uses++
		s.parts = append(s.parts, p)
	}
	if g.uses == 0 {
		file.Close()
	}
}

// Forget drops parts of which no variable is left.
func (s *Store) Forget(exists func(name string) bool) {
	s.remove(func(_ int, p *part) bool {
		return !slices.ContainsFunc(p.Variables, func(v Variable) bool { return exists(v.Name) })
	})
}

func (s *Store) remove(gone func(i int, p *part) bool) {
	var left []*part
	for i, p := range s.parts {
		if gone(i, p) {
			p.release()
		} else {
			left = append(left, p)
		}
	}
	s.parts = left
}

// release gives back the memory of a part.
func (p *part) release() {
	p.file.uses--
	if p.file.uses == 0 {
		p.file.file.Close()
		return
	}
	if p.Length >= holeBytesMin {
		const keepSize, punchHole = 1, 2
		_ = syscall.Fallocate(int(p.file.file.Fd()), keepSize|punchHole, p.Offset, p.Length)
	}
}

// Files gives what a program restores parts from: a table, and the files that it refers to.
func (s *Store) Files(restores []int) ([]*os.File, error) {
	files := s.distinct(restores)
	if len(files) > filesMax {
		if err := s.gather(restores); err != nil {
			return nil, err
		}
		files = s.distinct(restores)
	}
	table, err := process.MemoryFile("table")
	if err != nil {
		return nil, err
	}
	data := binary.LittleEndian.AppendUint64(nil, uint64(len(files)))
	data = binary.LittleEndian.AppendUint64(data, uint64(len(restores)))
	list := []*os.File{table}
	for _, g := range files {
		list = append(list, g.file)
	}
	for _, i := range restores {
		p := s.parts[i]
		data = binary.LittleEndian.AppendUint64(data, uint64(slices.Index(files, p.file)))
		data = binary.LittleEndian.AppendUint64(data, uint64(p.Offset))
		data = binary.LittleEndian.AppendUint64(data, uint64(p.Length))
	}
	if _, err := table.Write(data); err != nil {
		table.Close()
		return nil, err
	}
	return list, nil
}

func (s *Store) distinct(restores []int) []*generation {
	var files []*generation
	for _, i := range restores {
		if !slices.Contains(files, s.parts[i].file) {
			files = append(files, s.parts[i].file)
		}
	}
	return files
}

// gather copies parts into one file.
func (s *Store) gather(restores []int) error {
	file, err := process.MemoryFile("state")
	if err != nil {
		return err
	}
	g := &generation{file: file}
	offset := int64(0)
	for _, i := range restores {
		p := s.parts[i]
		if _, err := io.Copy(file, io.NewSectionReader(p.file.file, p.Offset, p.Length)); err != nil {
			file.Close()
			return err
		}
		offset += p.Length
	}
	offset = 0
	for _, i := range restores {
		p := s.parts[i]
		p.release()
		p.file, p.Offset = g, offset
		g.uses++
		offset += p.Length
	}
	return nil
}
