package keep

import (
	"reflect"
	"unsafe"
)

// A restorer builds the values of one part.
type restorer struct {
	registry *registry
	types    *oldTypes
	plans    plans
	index    map[*plan]map[uintptr]*slot
	words    map[[2]reflect.Type]unsafe.Pointer
	ahead    int64 // of this process's clock
	islands  []oldIsland
	boxes    []oldBox
	filled   []syncFill
	pending  []binding
	lost     map[string]bool // why something is not there
	names    []string        // variables of the part
	touched  []variable
}

type oldIsland struct {
	typ    int
	count  int
	place  int // in the bytes
	refs   int // length of its references
	base   unsafe.Pointer
	live   reflect.Type
	moves  []move // nil: its bytes are the same
	target *variable
}

type oldBox struct {
	typ              int
	count            int
	isChan, isSync   bool
	capacity         int
	closed           bool
	values, keys     contents
	live             reflect.Type
	object           reflect.Value
	pointer          unsafe.Pointer
	keyType, valType reflect.Type
}

type contents struct {
	there  bool
	island int
	offset uintptr
}

// A binding is a method value, made when its receiver is complete.
type binding struct {
	addr     unsafe.Pointer
	receiver unsafe.Pointer
	bind     func(unsafe.Pointer) any
}

type syncFill struct {
	addr unsafe.Pointer
	box  int
}

func newRestorer(r *registry) *restorer {
	return &restorer{registry: r, plans: plans{}, index: map[*plan]map[uintptr]*slot{},
		words: map[[2]reflect.Type]unsafe.Pointer{}, lost: map[string]bool{}}
}

// restore puts a part into the program's variables. What it panics with is the caller's.
func (d *restorer) restore(data []byte) {
	r := &reader{data}
	if r.int() != formatVersion {
		panic(damaged{"it is of another version"})
	}
	origin := int64(r.uint())
	d.ahead = origin - clockOrigin()
	d.types = readTypes(&reader{r.bytes()}, d.registry)
	boxes := &reader{r.bytes()}
	table := &reader{r.bytes()}
	rootCount := r.int()
	roots := &reader{r.bytes()}
	refs := r.bytes()
	length := r.int()
	for (len(data)-len(r.b))%8 != 0 {
		r.take(1)
	}
	bytes := r.take(length)
	d.readIslands(table, length)
	d.readRoots(roots, rootCount)
	for i := range d.islands {
		d.allocate(&d.islands[i])
	}
	d.readBoxes(boxes)
	for i := range d.islands {
		at := &d.islands[i]
		d.fill(at, bytes)
		if at.refs > len(refs) {
			panic(damaged{"references are missing"})
		}
		d.apply(at, &reader{refs[:at.refs]})
		refs = refs[at.refs:]
	}
	for _, b := range d.pending {
		value := b.bind(b.receiver)
		*(*unsafe.Pointer)(b.addr) = (*eface)(unsafe.Pointer(&value)).data
	}
	d.fillBoxes()
}

func (d *restorer) readIslands(r *reader, length int) {
	n := r.int()
	if n > len(r.b) {
		panic(damaged{"its table is too short"})
	}
	d.islands = make([]oldIsland, n)
	for i := range d.islands {
		at := &d.islands[i]
		at.typ, at.count, at.place, at.refs = r.below(len(d.types.list)), r.int(), r.int(), r.int()
		size := d.types.list[at.typ].size
		if size != 0 && (at.place > length || uintptr(at.count) > uintptr(length-at.place)/size) {
			panic(damaged{"bytes are missing"})
		}
	}
}

// readRoots says which islands are variables of the program.
func (d *restorer) readRoots(r *reader, n int) {
	for range n {
		name, island, offset := r.string(), r.below(len(d.islands)), r.size()
		d.names = append(d.names, name)
		at := &d.islands[island]
		v := d.registry.restored(name)
		if v == nil || at.target != nil && at.target.typ.Size() > 0 || offset != 0 {
			continue
		}
		if live := d.types.live(at.typ); live != v.typ || at.count != 1 {
			d.lose("its type is another one now: " + d.types.list[at.typ].name)
			continue
		}
		at.target = v
		d.touched = append(d.touched, *v)
	}
}

// restored finds the variable that a saved one becomes.
func (r *registry) restored(name string) *variable {
	for i := range r.variables {
		if v := &r.variables[i]; v.name == name {
			return v
		}
	}
	return nil
}

func (d *restorer) lose(why string) { d.lost[why] = true }

func (d *restorer) allocate(at *oldIsland) {
	at.live = d.types.live(at.typ)
	if at.live == nil {
		d.lose("type " + d.types.list[at.typ].name + " is no longer there")
		return
	}
	if !d.types.isSame(at.typ) {
		var whole bool
		if at.moves, whole = d.types.moves(at.typ, at.live); !whole {
			d.lose("type " + d.types.list[at.typ].name + " is another one now: only its fields of the same name and type are kept")
		}
	}
	switch {
	case at.target != nil:
		at.base = at.target.addr
	case at.count == 1:
		at.base = reflect.New(at.live).UnsafePointer()
	default:
		at.base = reflect.MakeSlice(reflect.SliceOf(at.live), at.count, at.count).UnsafePointer()
	}
}

// fill copies the bytes of an island. Where it has pointers the bytes are zero.
func (d *restorer) fill(at *oldIsland, bytes []byte) {
	size := d.types.list[at.typ].size
	if at.live == nil || size == 0 {
		return
	}
	from := bytes[at.place : at.place+at.count*int(size)]
	if at.moves == nil {
		copy(unsafe.Slice((*byte)(at.base), len(from)), from)
		return
	}
	for n := range at.count {
		old := from[n*int(size):]
		now := unsafe.Slice((*byte)(unsafe.Add(at.base, uintptr(n)*at.live.Size())), at.live.Size())
		for _, m := range at.moves {
			copy(now[m.to:m.to+m.size], old[m.from:m.from+m.size])
		}
	}
}

// address tells where an offset of an old island is now.
func (d *restorer) address(at *oldIsland, offset uintptr) unsafe.Pointer {
	size := d.types.list[at.typ].size
	if at.live == nil || size == 0 || offset >= size*uintptr(at.count) {
		return nil
	}
	if at.moves == nil {
		return unsafe.Add(at.base, offset)
	}
	inside, ok := moved(at.moves, offset%size)
	if !ok {
		return nil
	}
	return unsafe.Add(at.base, offset/size*at.live.Size()+inside)
}

// apply puts in place what is no plain bytes.
func (d *restorer) apply(at *oldIsland, r *reader) {
	for len(r.b) > 0 {
		place := r.size()
		addr := d.address(at, place)
		var s *slot
		if addr != nil {
			offset := (uintptr(addr) - uintptr(at.base)) % at.live.Size()
			s = d.slotAt(d.plans.of(at.live), offset)
		}
		d.ref(addr, s, r)
	}
}

// slotAt finds what the program has at an offset of a type; nil for plain bytes.
func (d *restorer) slotAt(p *plan, offset uintptr) *slot {
	byOffset := d.index[p]
	if byOffset == nil {
		byOffset = map[uintptr]*slot{}
		for i := range p.slots {
			s := &p.slots[i]
			// A time is at the same place as nothing else; the slot in it is its location.
			if byOffset[s.offset] == nil && s.kind != slotClear {
				byOffset[s.offset] = s
			}
		}
		d.index[p] = byOffset
	}
	if s := byOffset[offset]; s != nil && s.kind != slotArray {
		return s
	}
	for i := range p.slots {
		s := &p.slots[i]
		if s.kind == slotArray && offset >= s.offset && offset < s.offset+s.size {
			elem := d.plans.of(s.typ.Elem())
			return d.slotAt(elem, (offset-s.offset)%elem.size)
		}
	}
	return nil
}

// ref reads one reference and puts it at an address; nil: only reads it.
func (d *restorer) ref(addr unsafe.Pointer, s *slot, r *reader) {
	kind := r.int()
	into := func(want ...slotKind) bool {
		if s == nil {
			return false
		}
		for _, k := range want {
			if s.kind == k {
				return true
			}
		}
		return false
	}
	switch kind {
	case refInline:
		if text := r.string(); into(slotString) {
			*(*string)(addr) = text
		}
	case refString:
		data, n := d.target(r, nil), r.int()
		if into(slotString) && data.holds(n, 1) {
			*(*string)(addr) = unsafe.String((*byte)(data.addr), n)
		}
	case refEmpty:
		length, capacity := r.int(), r.int()
		if into(slotSlice) && (capacity == 0 || s.typ.Elem().Size() == 0) && length <= capacity {
			reflect.NewAt(s.typ, addr).Elem().Set(reflect.MakeSlice(s.typ, length, capacity))
		}
	case refSlice:
		data, length, capacity := d.target(r, elemOf(s, slotSlice)), r.int(), r.int()
		if into(slotSlice) && data.addr != nil && data.is(s.typ.Elem(), capacity) && length <= capacity {
			*(*unsafe.Pointer)(addr) = data.addr
			(*sliceHeader)(addr).length, (*sliceHeader)(addr).capacity = length, capacity
		}
	case refPointer:
		if data := d.target(r, elemOf(s, slotPointer)); into(slotPointer) && data.holds(1, s.typ.Elem().Size()) {
			*(*unsafe.Pointer)(addr) = data.addr
		}
	case refZeroSize:
		if t := d.types.live(r.below(len(d.types.list))); into(slotPointer) && t != nil {
			*(*unsafe.Pointer)(addr) = reflect.New(t).UnsafePointer()
		}
	case refStatic:
		d.static(addr, r.string(), into(slotPointer))
	case refStaticAny:
		d.staticAny(addr, s, r.string(), into(slotInterface))
	case refDirect:
		d.direct(addr, s, r, into(slotInterface))
	case refBoxed, refZeroBoxed:
		d.boxed(addr, s, r, kind, into(slotInterface))
	case refMap, refChan:
		b := &d.boxes[r.below(len(d.boxes))]
		if into(slotMap, slotChan) && b.live != nil && fits(s.typ, b.live) {
			*(*unsafe.Pointer)(addr) = b.pointer
		}
	case refSyncMap:
		if id := r.below(len(d.boxes)); into(slotSyncMap) {
			d.filled = append(d.filled, syncFill{addr, id})
		}
	case refFunc:
		name := r.string()
		if f, ok := d.registry.functions[name]; ok && into(slotFunc) {
			*(*unsafe.Pointer)(addr) = f
		} else if !ok {
			d.lose("function " + name + " is no longer there")
		}
	case refBound:
		d.bound(addr, r.string(), d.receiver(r), into(slotFunc))
	case refType:
		if t := d.types.live(r.below(len(d.types.list))); t != nil && into(slotTypePtr) {
			*(*unsafe.Pointer)(addr) = descriptorOf(t)
		}
	case refTime:
		if into(slotTime) {
			moveTime(addr, d.ahead)
		}
	case refBinary:
		r.below(len(d.types.list))
		if data := r.bytes(); into(slotBinary) {
			unmarshalBinary(addr, s.typ, data)
		}
	default:
		panic(damaged{"it has a reference of an unknown kind"})
	}
}

// elemOf is what a slot of that kind refers to; nil if it is none.
func elemOf(s *slot, kind slotKind) reflect.Type {
	if s == nil || s.kind != kind {
		return nil
	}
	return s.typ.Elem()
}

// receiver reads where the receiver of a method value is: an island of its own.
func (d *restorer) receiver(r *reader) goal {
	at := &d.islands[r.below(len(d.islands))]
	return d.goal(at, r.size(), at.live)
}

// fits tells whether a slot may hold a map or channel of a type.
func fits(slot, box reflect.Type) bool {
	if slot.Kind() != box.Kind() || slot.Elem() != box.Elem() {
		return false
	}
	return slot.Kind() == reflect.Chan || slot.Key() == box.Key()
}

// A goal is memory that a reference leads to.
type goal struct {
	addr  unsafe.Pointer
	at    *oldIsland
	after uintptr // bytes from there to the end
}

// holds tells whether that many values of a size are there.
func (g goal) holds(n int, size uintptr) bool {
	return g.addr != nil && (size == 0 || uintptr(n) <= g.after/size)
}

// is tells whether an array of that type is there.
func (g goal) is(elem reflect.Type, n int) bool {
	return g.holds(n, elem.Size())
}

// target reads where a reference leads to. want is the type of what it refers to, nil for bytes: at
// one offset there may be a struct and its first field, and a type that changed has them apart.
func (d *restorer) target(r *reader, want reflect.Type) goal {
	return d.goal(&d.islands[r.below(len(d.islands))], r.size(), want)
}

func (d *restorer) goal(at *oldIsland, offset uintptr, want reflect.Type) goal {
	g := goal{addr: d.address(at, offset), at: at}
	if at.live != nil && at.moves != nil && want != nil {
		size := d.types.list[at.typ].size
		inside, ok := d.types.placeOf(at.typ, at.live, offset%size, want)
		if ok && offset/size < uintptr(at.count) {
			g.addr = unsafe.Add(at.base, offset/size*at.live.Size()+inside)
		}
	}
	if g.addr != nil {
		g.after = at.live.Size()*uintptr(at.count) - (uintptr(g.addr) - uintptr(at.base))
	}
	return g
}
