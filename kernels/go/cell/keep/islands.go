package keep

import (
	"cmp"
	"slices"
	"unsafe"
)

// An island is memory that is saved as one piece: regions that overlap belong together, since a
// write through one is seen through the other.
type island struct {
	region
	roots  []rootAt // variables that lie in it
	zeroed []zeroed // what cannot be kept
	lost   bool     // nothing of it can be kept: pointers to it become nil
	part   int      // the part of the state that it belongs to
	number int      // within its part
}

// rootAt is a variable and where in the island it begins.
type rootAt struct {
	variable int
	offset   uintptr
}

type zeroed struct{ offset, size uintptr }

func (i *island) isZeroed(offset uintptr) bool {
	for _, z := range i.zeroed {
		if offset >= z.offset && offset < z.offset+z.size {
			return true
		}
	}
	return false
}

// image is all islands, by address.
type image struct {
	*collector
	islands []island
	parts   int
}

// merge makes islands of regions.
func merge(c *collector) *image {
	slices.SortFunc(c.regions, func(a, b region) int {
		if order := cmp.Compare(a.start(), b.start()); order != 0 {
			return order
		}
		return cmp.Compare(b.size, a.size)
	})
	m := &image{collector: c}
	for i := 0; i < len(c.regions); {
		j, end := i+1, c.regions[i].end()
		for j < len(c.regions) && c.regions[j].start() < end {
			end = max(end, c.regions[j].end())
			j++
		}
		m.islands = append(m.islands, joined(c.regions[i:j], end))
		i = j
	}
	return m
}

// joined is the island of regions that overlap: the longest of them holds all, or they are
// slices of one array.
func joined(regions []region, end uintptr) island {
	first := island{region: regions[0]}
	for _, r := range regions {
		if r.root >= 0 {
			first.roots = append(first.roots, rootAt{r.root, r.start() - regions[0].start()})
		}
		// Of two that begin and end together, the one with pointers knows more.
		if r.start() == first.start() && r.size == first.size && first.plan.plain() && !r.plan.plain() {
			first.plan, first.count = r.plan, r.count
		}
	}
	if length := end - first.start(); length > first.size {
		whole := length / first.plan.size * first.plan.size
		first.count, first.size = int(whole/first.plan.size), whole
	}
	return first
}

// find gives the island that memory lies in, and where.
func (m *image) find(addr unsafe.Pointer, size uintptr) (index int, offset uintptr, ok bool) {
	start := uintptr(addr)
	low, high := 0, len(m.islands)
	for low < high {
		if middle := (low + high) / 2; m.islands[middle].start() <= start {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low == 0 {
		return 0, 0, false
	}
	found := &m.islands[low-1]
	if start+size > found.end() {
		return 0, 0, false
	}
	return low - 1, start - found.start(), true
}

// An edge is a pointer from one island to another.
type edge struct {
	from   int
	offset uintptr
	slot   *slot
	base   uintptr // offset of the value that the slot is in
}

// settle decides what failures take with them. A failure in a struct of another package's own
// making breaks that struct: half of it would be worse than nothing. Whatever can only be
// reached through such a pointer is then decided in the same way.
func (m *image) settle() {
	if len(m.failures) == 0 {
		return
	}
	incoming := map[int][]edge{}
	var broken []int
	m.walkAll(func(from int, base unsafe.Pointer, s *slot) {
		addr := unsafe.Add(base, s.offset)
		e := edge{from: from, offset: uintptr(addr) - m.islands[from].start(), slot: s, base: uintptr(base) - m.islands[from].start()}
		if f, failed := m.failures[addr]; failed {
			if m.lose(e, f) {
				broken = append(broken, from)
			}
			return
		}
		m.targets(addr, s, func(to int) { incoming[to] = append(incoming[to], e) })
	})
	for len(broken) > 0 {
		last := broken[len(broken)-1]
		broken = broken[:len(broken)-1]
		why := m.whyLost(last)
		for _, e := range incoming[last] {
			if !m.islands[e.from].isZeroed(e.offset) && m.lose(e, why) {
				broken = append(broken, e.from)
			}
		}
	}
}

func (m *image) whyLost(index int) failure {
	lost := &m.islands[index]
	for addr, f := range m.failures {
		if uintptr(addr) >= lost.start() && uintptr(addr) < lost.end() {
			return failure{what: lost.plan.typ.String(), why: "it holds " + f.what + ": " + f.why}
		}
	}
	return failure{what: lost.plan.typ.String(), why: "something in it cannot be kept"}
}

// lose clears what cannot be kept, and tells whether that is the whole island.
func (m *image) lose(e edge, f failure) bool {
	from := &m.islands[e.from]
	if from.lost {
		return false
	}
	m.failures[unsafe.Add(from.addr, e.offset)] = f
	if !e.slot.private {
		from.zeroed = append(from.zeroed, zeroed{e.offset, e.slot.size})
		return false
	}
	whole := e.slot.foreign == 0 && e.slot.foreignSize == from.plan.size && len(from.roots) == 0
	if whole && from.count == 1 {
		from.lost = true
		return true
	}
	from.zeroed = append(from.zeroed, zeroed{e.base + e.slot.foreign, e.slot.foreignSize})
	return false
}

// walkAll visits every slot of every island.
func (m *image) walkAll(visit func(from int, base unsafe.Pointer, s *slot)) {
	for i := range m.islands {
		m.walkIsland(i, visit)
	}
}

func (m *image) walkIsland(index int, visit func(from int, base unsafe.Pointer, s *slot)) {
	at := &m.islands[index]
	if at.plan.plain() {
		return
	}
	for n := range at.count {
		m.walkValue(index, unsafe.Add(at.addr, uintptr(n)*at.plan.size), at.plan, visit)
	}
}

func (m *image) walkValue(from int, base unsafe.Pointer, p *plan, visit func(int, unsafe.Pointer, *slot)) {
	for i := range p.slots {
		s := &p.slots[i]
		if s.kind != slotArray {
			visit(from, base, s)
			continue
		}
		elem := m.plans.of(s.typ.Elem())
		for n := range s.count {
			m.walkValue(from, unsafe.Add(base, s.offset+uintptr(n)*elem.size), elem, visit)
		}
	}
}

// targets calls found with every island that a slot leads to.
func (m *image) targets(addr unsafe.Pointer, s *slot, found func(int)) {
	to := func(p unsafe.Pointer, size uintptr) {
		if i, _, ok := m.find(p, size); ok {
			found(i)
		}
	}
	boxed := func(b *box) {
		if b != nil && b.count > 0 {
			to(b.values, 1)
			if !b.isChan {
				to(b.keys, 1)
			}
		}
	}
	switch s.kind {
	case slotString:
		if h := at[stringHeader](addr); h.length > inlineStringBytesMax {
			to(h.data, uintptr(h.length))
		}
	case slotSlice:
		if h := at[sliceHeader](addr); h.capacity > 0 {
			to(h.data, 1)
		}
	case slotPointer:
		if p := at[unsafe.Pointer](addr); p != nil && m.registry.pointers[p] == "" {
			to(p, 1)
		}
	case slotMap, slotChan:
		boxed(m.boxes[at[unsafe.Pointer](addr)])
	case slotSyncMap:
		boxed(m.syncMaps[addr])
	case slotFunc:
		if p := at[unsafe.Pointer](addr); p != nil {
			if receiver, _ := m.registry.function(functionName(p)); receiver != nil {
				to(unsafe.Add(p, wordSize), 1)
			}
		}
	case slotInterface:
		t, data, ok := dynamic(addr, s.typ)
		if !ok || m.registry.values[unsafePair{descriptorOf(t), data}] != "" {
			return
		}
		if !m.isDirect(t) {
			to(data, 1)
			return
		}
		p := m.plans.of(t)
		for i := range p.slots {
			m.targets(unsafe.Add(addr, wordSize+p.slots[i].offset), &p.slots[i], found)
		}
	}
}

// divide splits the islands into parts that share nothing, so that a program that needs one
// variable has to restore only what that one shares memory with. Islands that no variable leads
// to any more are in no part.
func (m *image) divide() {
	parent := make([]int, len(m.islands))
	reached := make([]bool, len(m.islands))
	var queue []int
	for i := range parent {
		parent[i] = i
		if len(m.islands[i].roots) > 0 {
			reached[i] = true
			queue = append(queue, i)
		}
	}
	root := func(i int) int {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	boxOf := map[*box]int{}
	visit := func(from int, base unsafe.Pointer, s *slot) {
		addr := unsafe.Add(base, s.offset)
		if m.islands[from].isZeroed(uintptr(addr) - m.islands[from].start()) {
			return
		}
		m.targets(addr, s, func(to int) {
			if m.islands[to].lost {
				return
			}
			parent[root(to)] = root(from)
			if !reached[to] {
				reached[to] = true
				queue = append(queue, to)
			}
		})
		// An empty map leads nowhere, but two variables may share it.
		if b := m.boxAt(addr, s); b != nil {
			if first, known := boxOf[b]; known {
				parent[root(from)] = root(first)
			} else {
				boxOf[b] = from
			}
		}
	}
	for len(queue) > 0 {
		last := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		m.walkIsland(last, visit)
	}
	m.number(reached, root)
}

// number gives every island its part and its place in it.
func (m *image) number(reached []bool, root func(int) int) {
	numbers := map[int]int{}
	var sizes []int
	for i := range m.islands {
		if !reached[i] {
			m.islands[i].part = -1
			continue
		}
		top := root(i)
		part, known := numbers[top]
		if !known {
			part = len(sizes)
			numbers[top] = part
			sizes = append(sizes, 0)
		}
		m.islands[i].part, m.islands[i].number = part, sizes[part]
		sizes[part]++
	}
	m.parts = len(sizes)
}

// boxAt is the map or channel that a slot holds, in an interface too.
func (m *image) boxAt(addr unsafe.Pointer, s *slot) *box {
	switch s.kind {
	case slotMap, slotChan:
		return m.boxes[at[unsafe.Pointer](addr)]
	case slotInterface:
		t, data, ok := dynamic(addr, s.typ)
		if ok && m.isDirect(t) {
			return m.boxes[data]
		}
	}
	return nil
}
