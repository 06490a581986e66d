package keep

import (
	"reflect"
	"unsafe"
)

// Memory from this size on is written from where it is instead of being copied first.
const directBytesMin = 64 << 10

// partWriter writes the islands of one part.
//
//	version, clock | types | boxes | islands | names of variables | references | bytes
//
// The bytes come last, each island's at a multiple of eight, so that they can be copied as they
// are; references say what belongs where the bytes are cleared.
type partWriter struct {
	m         *image
	types     *typeTable
	functions map[string]bool
	statics   map[string]bool
	boxIDs    map[*box]int
	boxes     []*box
	refs      writer
	pieces    []piece
	tail      []byte // of the bytes, not yet a piece
	length    int    // of the bytes so far
}

// A piece is part of the output, in order.
type piece struct{ data []byte }

func (m *image) newPart() *partWriter {
	return &partWriter{m: m, types: newTypeTable(), functions: map[string]bool{}, statics: map[string]bool{}, boxIDs: map[*box]int{}}
}

// write gives the saved form of a part.
func (p *partWriter) write(islands []*island, origin int64) []piece {
	var table, roots writer
	rootCount := 0
	table.int(len(islands))
	for _, at := range islands {
		table.int(p.types.id(at.plan.typ, true))
		table.int(at.count)
		p.align()
		table.int(p.length)
		before := len(p.refs.b)
		p.island(at)
		table.int(len(p.refs.b) - before)
		for _, r := range at.roots {
			rootCount++
			roots.string(p.m.registry.variables[r.variable].name)
			roots.int(at.number)
			roots.size(r.offset)
		}
	}
	boxes := p.writeBoxes()
	var head, types writer
	head.int(formatVersion)
	head.uint(uint64(origin))
	p.types.write(&types)
	head.bytes(types.b)
	head.bytes(boxes)
	head.bytes(table.b)
	head.int(rootCount)
	head.bytes(roots.b)
	head.bytes(p.refs.b)
	p.flush()
	head.int(p.length)
	for len(head.b)%8 != 0 {
		head.b = append(head.b, 0)
	}
	return append([]piece{{head.b}}, p.pieces...)
}

func (p *partWriter) align() {
	for p.length%8 != 0 {
		p.tail = append(p.tail, 0)
		p.length++
	}
}

func (p *partWriter) flush() {
	if len(p.tail) > 0 {
		p.pieces = append(p.pieces, piece{p.tail})
		p.tail = nil
	}
}

// island writes an island's bytes and its references.
func (p *partWriter) island(at *island) {
	memory := unsafe.Slice((*byte)(at.addr), at.size)
	if at.plan.plain() && at.size >= directBytesMin {
		p.flush()
		p.pieces = append(p.pieces, piece{memory})
		p.length += len(memory)
		return
	}
	start := len(p.tail)
	p.tail = append(p.tail, memory...)
	p.length += len(memory)
	copied := p.tail[start:]
	for n := range at.count {
		p.value(at, copied, uintptr(n)*at.plan.size, at.plan)
	}
	for _, z := range at.zeroed {
		clear(copied[z.offset : z.offset+z.size])
	}
}

// value writes the references of one value at an offset of the island.
func (p *partWriter) value(at *island, copied []byte, offset uintptr, plan *plan) {
	for i := range plan.slots {
		s := &plan.slots[i]
		place := offset + s.offset
		if s.kind == slotArray {
			elem := p.m.plans.of(s.typ.Elem())
			for n := range s.count {
				p.value(at, copied, place+uintptr(n)*elem.size, elem)
			}
			continue
		}
		mark := len(p.refs.b)
		p.refs.size(place)
		if at.isZeroed(place) || !p.slot(unsafe.Add(at.addr, place), s, copied[place:place+s.size]) {
			p.refs.b = p.refs.b[:mark]
		}
	}
}

// slot writes the reference that stands for a slot; false if the copied bytes say it all.
func (p *partWriter) slot(addr unsafe.Pointer, s *slot, copied []byte) bool {
	switch s.kind {
	case slotTime:
		p.refs.int(refTime)
		return true
	case slotBusy:
		if !p.m.settled {
			clear(copied)
		}
		return false
	}
	clear(copied)
	switch s.kind {
	case slotString:
		return p.text(at[stringHeader](addr))
	case slotSlice:
		h := at[sliceHeader](addr)
		if h.data != nil && (h.capacity == 0 || s.typ.Elem().Size() == 0) {
			p.refs.int(refEmpty)
			p.refs.int(h.length)
			p.refs.int(h.capacity)
			return true
		}
		index, offset, ok := p.m.find(h.data, 1)
		if h.data == nil || !ok {
			return false
		}
		p.target(refSlice, index, offset)
		p.refs.int(h.length)
		p.refs.int(h.capacity)
		return true
	case slotPointer:
		return p.pointer(at[unsafe.Pointer](addr), s.typ.Elem())
	case slotInterface:
		return p.dynamic(addr, s)
	case slotMap, slotChan:
		return p.box(p.m.boxes[at[unsafe.Pointer](addr)])
	case slotSyncMap:
		return p.box(p.m.syncMaps[addr])
	case slotFunc:
		return p.function(at[unsafe.Pointer](addr))
	case slotTypePtr:
		if d := at[unsafe.Pointer](addr); d != nil {
			p.refs.int(refType)
			p.refs.int(p.types.found(typeOfDescriptor(d)))
			return true
		}
	case slotBinary:
		if data, ok := marshalBinary(addr, s.typ); ok {
			p.refs.int(refBinary)
			p.refs.int(p.types.id(s.typ, false))
			p.refs.bytes(data)
			return true
		}
	}
	return false
}

func (p *partWriter) target(ref, index int, offset uintptr) {
	p.refs.int(ref)
	p.refs.int(p.m.islands[index].number)
	p.refs.size(offset)
}

func (p *partWriter) text(h stringHeader) bool {
	if h.length == 0 {
		return false
	}
	if h.length <= inlineStringBytesMax {
		p.refs.int(refInline)
		p.refs.string(unsafe.String((*byte)(h.data), h.length))
		return true
	}
	index, offset, ok := p.m.find(h.data, uintptr(h.length))
	if !ok {
		return false
	}
	p.target(refString, index, offset)
	p.refs.int(h.length)
	return true
}

func (p *partWriter) pointer(to unsafe.Pointer, elem reflect.Type) bool {
	if to == nil {
		return false
	}
	if name, ok := p.m.registry.pointers[to]; ok {
		p.noteStatic(name)
		p.refs.int(refStatic)
		p.refs.string(name)
		return true
	}
	if elem.Size() == 0 {
		p.refs.int(refZeroSize)
		p.refs.int(p.types.id(elem, false))
		return true
	}
	index, offset, ok := p.m.find(to, 1)
	if !ok || p.m.islands[index].lost {
		return false
	}
	p.target(refPointer, index, offset)
	return true
}

// noteStatic has the next program declare a variable that it would not have of itself.
func (p *partWriter) noteStatic(name string) {
	if ownStatics[name] == nil {
		p.statics[name] = true
	}
}

func (p *partWriter) dynamic(addr unsafe.Pointer, s *slot) bool {
	t, data, ok := dynamic(addr, s.typ)
	if !ok {
		return false
	}
	if name, ok := p.m.registry.values[unsafePair{descriptorOf(t), data}]; ok {
		p.noteStatic(name)
		p.refs.int(refStaticAny)
		p.refs.string(name)
		return true
	}
	if !p.m.isDirect(t) {
		return p.boxed(t, data)
	}
	plan := p.m.plans.of(t)
	p.refs.int(refDirect)
	p.refs.int(p.types.found(t))
	var word [wordSize]byte
	for i := range plan.slots {
		p.refs.bool(true)
		if p.slot(unsafe.Add(addr, wordSize+plan.slots[i].offset), &plan.slots[i], word[:]) {
			return true
		}
		p.refs.b = p.refs.b[:len(p.refs.b)-1]
	}
	// A typed nil.
	p.refs.bool(false)
	return true
}

func (p *partWriter) boxed(t reflect.Type, data unsafe.Pointer) bool {
	if t.Size() == 0 {
		p.refs.int(refZeroBoxed)
		p.refs.int(p.types.found(t))
		return true
	}
	index, offset, ok := p.m.find(data, t.Size())
	if !ok || p.m.islands[index].lost {
		return false
	}
	id := p.types.found(t)
	p.refs.int(refBoxed)
	p.refs.int(id)
	p.refs.int(p.m.islands[index].number)
	p.refs.size(offset)
	return true
}

func (p *partWriter) box(b *box) bool {
	if b == nil {
		return false
	}
	id, known := p.boxIDs[b]
	if !known {
		id = len(p.boxes)
		p.boxIDs[b] = id
		p.boxes = append(p.boxes, b)
	}
	switch {
	case b.isSync:
		p.refs.int(refSyncMap)
	case b.isChan:
		p.refs.int(refChan)
	default:
		p.refs.int(refMap)
	}
	p.refs.int(id)
	return true
}

func (p *partWriter) function(f unsafe.Pointer) bool {
	if f == nil {
		return false
	}
	name := functionName(f)
	receiver, why := p.m.registry.function(name)
	if why != "" {
		return false
	}
	if receiver == nil {
		p.functions[name] = true
		p.refs.int(refFunc)
		p.refs.string(name)
		return true
	}
	index, offset, ok := p.m.find(unsafe.Add(f, wordSize), receiver.Size())
	if !ok || p.m.islands[index].lost {
		return false
	}
	p.functions[name] = true
	p.refs.int(refBound)
	p.refs.string(name)
	p.refs.int(p.m.islands[index].number)
	p.refs.size(offset)
	return true
}

// writeBoxes lists maps and channels: where their contents are.
func (p *partWriter) writeBoxes() []byte {
	var w writer
	w.int(len(p.boxes))
	for _, b := range p.boxes {
		w.int(p.types.id(b.typ, b.typ.Name() == ""))
		w.int(b.count)
		w.bool(b.isChan)
		w.bool(b.isSync)
		if b.isChan {
			w.int(b.capacity)
			w.bool(b.closed)
		}
		p.contents(&w, b.values, b.plan, b.count)
		if !b.isChan {
			p.contents(&w, b.keys, b.keyPlan, b.count)
		}
	}
	return w.b
}

func (p *partWriter) contents(w *writer, addr unsafe.Pointer, plan *plan, count int) {
	if count == 0 || plan.size == 0 {
		w.bool(false)
		return
	}
	index, offset, ok := p.m.find(addr, plan.size*uintptr(count))
	if !ok {
		w.bool(false)
		return
	}
	w.bool(true)
	w.int(p.m.islands[index].number)
	w.size(offset)
}
