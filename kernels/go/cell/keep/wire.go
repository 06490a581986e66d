package keep

// The saved form of one part: numbers of seven bits and more, strings with their length.

const formatVersion = 1

// What stands at a place of an island that is no plain bytes.
const (
	refInline    = iota // string: text
	refString           // string: island, offset, length
	refEmpty            // slice that is not nil and needs no memory: length, capacity
	refSlice            // island, offset, length, capacity
	refPointer          // island, offset
	refZeroSize         // pointer to a value without a size: type
	refStatic           // pointer in a package variable: its name
	refDirect           // interface that holds a pointer: type, place in it, reference
	refBoxed            // interface that holds a value: type, island, offset
	refZeroBoxed        // interface that holds a value without a size: type
	refStaticAny        // interface in a package variable: its name
	refMap              // number of the map
	refChan             // number of the channel
	refFunc             // name
	refBound            // method value: name, island, offset
	refType             // description of a type: type
	refTime             // a time to move to the clock of this process
	refBinary           // type, bytes for its UnmarshalBinary
	refSyncMap          // number of the map
)

type writer struct{ b []byte }

func (w *writer) uint(n uint64) {
	for n >= 0x80 {
		w.b = append(w.b, byte(n)|0x80)
		n >>= 7
	}
	w.b = append(w.b, byte(n))
}

func (w *writer) int(n int)         { w.uint(uint64(n)) }
func (w *writer) size(n uintptr)    { w.uint(uint64(n)) }
func (w *writer) string(s string)   { w.int(len(s)); w.b = append(w.b, s...) }
func (w *writer) bytes(data []byte) { w.int(len(data)); w.b = append(w.b, data...) }
func (w *writer) bool(is bool) {
	if is {
		w.int(1)
	} else {
		w.int(0)
	}
}

// damaged is what a reader panics with: the state was not written by this package.
type damaged struct{ what string }

type reader struct{ b []byte }

func (r *reader) uint() uint64 {
	var n uint64
	for shift := 0; shift < 64; shift += 7 {
		if len(r.b) == 0 {
			panic(damaged{"it ends early"})
		}
		c := r.b[0]
		r.b = r.b[1:]
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
	panic(damaged{"a number is too long"})
}

func (r *reader) int() int {
	n := r.uint()
	if n > addressSpace {
		panic(damaged{"a number is too large"})
	}
	return int(n)
}

func (r *reader) size() uintptr { return uintptr(r.int()) }
func (r *reader) bool() bool    { return r.uint() != 0 }

// take gives the next n bytes, not copied.
func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		panic(damaged{"it ends early"})
	}
	taken := r.b[:n:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) bytes() []byte  { return r.take(r.int()) }
func (r *reader) string() string { return string(r.bytes()) }

// below reads an index into a list.
func (r *reader) below(n int) int {
	i := r.int()
	if i >= n {
		panic(damaged{"it refers to what it does not have"})
	}
	return i
}
