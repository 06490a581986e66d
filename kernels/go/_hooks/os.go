// Laid beside package os when the standard library of cells is compiled (internal/stdlib).

package os

// Set by package cell: a cell is about to read its standard input.
var crownestStdin func()

func crownestBeforeRead(f *File) {
	if crownestStdin != nil && f != nil && f.file != nil && f.pfd.Sysfd == 0 {
		crownestStdin()
	}
}
