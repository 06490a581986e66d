package session

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"crownest/internal/process"
	"crownest/internal/program"
	"crownest/internal/toolchain"
)

// Programs that are kept for cells that come again.
const binariesMax = 8

// binaries are the programs of the last cells: the same source is not compiled twice.
type binaries struct {
	list   []binary // the last used first
	number int
}

type binary struct {
	hash [sha256.Size]byte
	path string
}

func (b *binaries) forget() { b.list = nil }

// find gives a program that is still there.
func (b *binaries) find(hash [sha256.Size]byte) string {
	for i, known := range b.list {
		if known.hash != hash {
			continue
		}
		b.list = append(b.list[:i], b.list[i+1:]...)
		if info, err := os.Stat(known.path); err != nil || info.Mode()&0o100 == 0 {
			return ""
		}
		b.list = append([]binary{known}, b.list...)
		return known.path
	}
	return ""
}

func (b *binaries) add(hash [sha256.Size]byte, path string) {
	b.list = append([]binary{{hash, path}}, b.list...)
	for len(b.list) > binariesMax {
		last := len(b.list) - 1
		os.Remove(b.list[last].path)
		b.list = b.list[:last]
	}
}

// build compiles a program, unless it is there already.
func (s *Session) build(p *program.Program, stop process.Stop, cpu *time.Duration) (toolchain.Outcome, error) {
	dir, err := s.ownDir()
	if err != nil {
		return toolchain.Outcome{}, err
	}
	h := sha256.New()
	fmt.Fprintln(h, s.packages.Generation())
	for _, f := range p.Files {
		fmt.Fprintf(h, "%s %d\n%s", f.Name, len(f.Text), f.Text)
	}
	var hash [sha256.Size]byte
	h.Sum(hash[:0])
	if path := s.built.find(hash); path != "" {
		return toolchain.Outcome{Binary: path}, nil
	}
	s.built.number++
	path := filepath.Join(dir, fmt.Sprintf("cell%d", s.built.number))
	outcome, err := s.packages.Build(p.Files, filepath.Join(dir, "build"), path, stop, cpu)
	if err == nil && outcome.Messages == "" && !outcome.Stopped {
		s.built.add(hash, path)
	}
	return outcome, err
}
