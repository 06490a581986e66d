package keep

import (
	"cmp"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"crownest/cell"
)

const (
	// All values together. Saved state is memory of the sandbox a second time.
	stateBytesMax = 2 << 30
	// Values that are named as not kept in one run; more are counted.
	lostMax = 50
	// Files that the driver passes.
	filesMax = 64
	// Turning the collector off and on stops the world twice.
	withoutGCBytesMin = 1 << 20
)

// Begin restores what the driver passes, and has the variables saved at the end. passed is 1 if it
// passes anything: no word of the language that a cell could have given another meaning is in the
// code that calls this.
func Begin(passed int) {
	if passed == 1 {
		restoreAll()
	}
	cell.OnSave(func(settled bool) cell.Saved { return program.save(settled) })
}

// A mapping is a file in memory.
type mapping []byte

func mapFile(fd int) mapping {
	var stat syscall.Stat_t
	if fd < 0 || syscall.Fstat(fd, &stat) != nil || stat.Size == 0 {
		return nil
	}
	data, err := syscall.Mmap(fd, 0, int(stat.Size), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		return nil
	}
	return data
}

// number reads eight bytes, little endian.
func (m mapping) number(at int) uint64 { return *(*uint64)(unsafe.Pointer(&m[at])) }

// restoreAll reads the table that the driver wrote: number of files, number of parts, then file,
// offset and length of each part.
func restoreAll() {
	const headBytes, entryBytes = 16, 24
	table := cell.StateTable()
	entries := mapFile(table)
	defer unmap(table, entries)
	if len(entries) < headBytes {
		cell.Notice("state_not_kept", "the values of earlier cells cannot be read")
		return
	}
	files := make([]mapping, min(entries.number(0), filesMax))
	total := 0
	for i := range files {
		fd := cell.StateFile(i)
		files[i] = mapFile(fd)
		defer unmap(fd, files[i])
		total += len(files[i])
	}
	restore := func() {
		for i := 0; uint64(i) < entries.number(8) && headBytes+entryBytes*(i+1) <= len(entries); i++ {
			at := headBytes + entryBytes*i
			file, offset, length := entries.number(at), entries.number(at+8), entries.number(at+16)
			if file < uint64(len(files)) {
				if data := files[file]; offset <= uint64(len(data)) && length <= uint64(len(data))-offset {
					program.restorePart(data[offset : offset+length])
				}
			}
		}
	}
	cell.PanicOnFault(true)
	defer cell.PanicOnFault(false)
	if total >= withoutGCBytesMin {
		// Nothing that is built now is garbage.
		cell.WithoutGC(restore)
	} else {
		restore()
	}
}

func unmap(fd int, data mapping) {
	if data != nil {
		_ = syscall.Munmap(data)
	}
	if fd >= 0 {
		_ = syscall.Close(fd)
	}
}

// restorePart puts one part in place; if that fails its variables are zero.
func (r *registry) restorePart(data []byte) {
	d := newRestorer(r)
	defer func() {
		if problem := recover(); problem != nil {
			for _, v := range d.touched {
				reflect.NewAt(v.typ, v.addr).Elem().SetZero()
			}
			d.lost = map[string]bool{"the saved value is damaged: " + problemText(problem): true}
		}
		for _, why := range sortedNames(d.lost) {
			cell.Notice("state_not_kept", listed(d.names)+": "+why)
		}
	}()
	d.restore(data)
}

func problemText(problem any) string {
	switch p := problem.(type) {
	case damaged:
		return p.what
	case error:
		return p.Error()
	case string:
		return p
	}
	return "unknown"
}

// shownName is the name of a variable without what tells it from others of that name.
func shownName(name string) string {
	short, _, _ := strings.Cut(name, "#")
	return short
}

func listed(names []string) string {
	text := ""
	for i, name := range names {
		if i == 10 {
			return text + " …"
		}
		if i > 0 {
			text += ", "
		}
		text += shownName(name)
	}
	return text
}

// save writes all variables to a memory file.
func (r *registry) save(settled bool) (saved cell.Saved) {
	// A pointer that leads nowhere is a panic then, and no end of the process.
	cell.PanicOnFault(true)
	saved.FD = -1
	defer func() {
		if problem := recover(); problem != nil {
			saved = cell.Saved{FD: -1, Parts: cell.AppendString([]byte(`{"failed":`), problemText(problem))}
			saved.Parts = append(saved.Parts, '}')
		}
	}()
	c := newCollector(r, settled)
	c.collect(r.variables)
	m := merge(c)
	m.settle()
	m.divide()
	fd := memoryFile()
	if fd < 0 {
		panic("no memory file")
	}
	return cell.Saved{FD: fd, Parts: m.writeParts(fd)}
}

// writeParts writes every part and describes it to the driver.
func (m *image) writeParts(fd int) []byte {
	parts := make([][]*island, m.parts)
	for i := range m.islands {
		if at := &m.islands[i]; at.part >= 0 {
			parts[at.part] = append(parts[at.part], at)
		}
	}
	origin := clockOrigin()
	out := []byte(`{"parts":[`)
	written, first := 0, true
	var lost []lostValue
	for _, islands := range parts {
		p := m.newPart()
		pieces := p.write(islands, origin)
		length := 0
		for _, piece := range pieces {
			length += len(piece.data)
		}
		if written+length > stateBytesMax || !writeAll(fd, pieces) {
			for _, v := range m.variablesOf(islands) {
				lost = append(lost, lostValue{v.name, v.typ.String(), "it is too large"})
			}
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		out = m.describePart(out, p, islands, written, length)
		written += length
	}
	out = append(out, `],"lost":[`...)
	out = appendLost(out, append(lost, m.lostValues()...))
	return append(out, `}`...)
}

func (m *image) variablesOf(islands []*island) []*variable {
	var list []*variable
	for _, at := range islands {
		for _, root := range at.roots {
			list = append(list, &m.registry.variables[root.variable])
		}
	}
	return list
}

func (m *image) describePart(b []byte, p *partWriter, islands []*island, offset, length int) []byte {
	b = append(b, `{"offset":`...)
	b = cell.AppendInt(b, int64(offset))
	b = append(b, `,"length":`...)
	b = cell.AppendInt(b, int64(length))
	b = append(b, `,"variables":[`...)
	for i, v := range m.variablesOf(islands) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendPreview(b, v)
	}
	b = append(b, ']')
	b = appendNames(b, "types", p.types.dynamic)
	b = appendNames(b, "functions", p.functions)
	b = appendNames(b, "statics", p.statics)
	return append(b, '}')
}

func appendNames(b []byte, key string, set map[string]bool) []byte {
	if len(set) == 0 {
		return b
	}
	b = append(b, `,"`...)
	b = append(append(b, key...), `":[`...)
	for i, name := range sortedNames(set) {
		if i > 0 {
			b = append(b, ',')
		}
		b = cell.AppendString(b, name)
	}
	return append(b, ']')
}

// A lostValue is something of a variable that is not kept.
type lostValue struct{ name, what, why string }

func (m *image) lostValues() []lostValue {
	seen := map[lostValue]bool{}
	var list []lostValue
	for addr, f := range m.failures {
		index, _, ok := m.find(addr, 1)
		if !ok || m.islands[index].lost || m.islands[index].part < 0 {
			continue
		}
		l := lostValue{m.registry.variables[m.islands[index].via].name, f.what, f.why}
		if !seen[l] {
			seen[l] = true
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b lostValue) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.what, b.what), cmp.Compare(a.why, b.why))
	})
	return list
}

func appendLost(b []byte, list []lostValue) []byte {
	for i, l := range list {
		if i == lostMax {
			break
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = cell.AppendString(append(b, `{"name":`...), l.name)
		b = cell.AppendString(append(b, `,"what":`...), l.what)
		b = cell.AppendString(append(b, `,"why":`...), l.why)
		b = append(b, '}')
	}
	b = append(b, `],"lost_more":`...)
	return cell.AppendInt(b, int64(max(0, len(list)-lostMax)))
}

// memoryFile makes the file that the state is written to.
func memoryFile() int {
	name := [...]byte{'s', 't', 'a', 't', 'e', 0}
	const closeOnExec = 1
	fd, _, err := syscall.RawSyscall(memfdCreate(), uintptr(unsafe.Pointer(&name[0])), closeOnExec, 0)
	if err != 0 {
		return -1
	}
	return int(fd)
}

// memfdCreate is the number of the system call, which package syscall does not have.
func memfdCreate() uintptr {
	if runtime.GOARCH == "arm64" {
		return 279
	}
	return 319
}

func writeAll(fd int, pieces []piece) bool {
	for _, p := range pieces {
		for data := p.data; len(data) > 0; {
			n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)))
			if err == syscall.EINTR {
				continue
			}
			if err != 0 {
				return false
			}
			data = data[n:]
		}
	}
	return true
}
