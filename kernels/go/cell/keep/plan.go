package keep

import (
	"reflect"
	"strings"
	"unsafe"
)

// What of a value holds more than plain bytes.
type slotKind uint8

const (
	slotString slotKind = iota
	slotSlice
	slotPointer
	slotInterface
	slotMap
	slotChan
	slotFunc
	slotArray   // of elements that have slots themselves
	slotTypePtr // pointer to the runtime's description of a type
	slotTime    // a time.Time: its reading of the monotonic clock means nothing elsewhere
	slotBinary  // saved by its own MarshalBinary
	slotSyncMap
	slotClear    // zero in the saved image, without a word
	slotBusy     // a lock or counter: zero, with a word, if other goroutines were using it
	slotResource // cannot be kept
)

// A slot is one such place within a value.
type slot struct {
	offset uintptr
	size   uintptr
	kind   slotKind
	typ    reflect.Type
	count  int    // of slotArray
	why    string // of slotResource
	// The slot is an unexported field of another package's struct, of which the outermost one
	// lies at [foreign, foreign+foreignSize): without this slot that struct is broken.
	private              bool
	foreign, foreignSize uintptr
}

// A plan is what has to be known of a type to save its values.
type plan struct {
	typ   reflect.Type
	size  uintptr
	slots []slot
	// Values of the type cannot be kept at all; pointers to them become nil.
	resource string
	built    bool
}

func (p *plan) plain() bool { return len(p.slots) == 0 }

// plans are made once per type; a type may contain pointers to itself.
type plans map[reflect.Type]*plan

func (ps plans) of(t reflect.Type) *plan {
	p := ps[t]
	if p == nil {
		p = &plan{typ: t, size: t.Size()}
		ps[t] = p
		p.resource = resourceOf(t)
		b := builder{plans: ps, plan: p}
		b.add(t, 0, place{})
		p.built = true
	}
	return p
}

// place says in which package's struct a slot lies.
type place struct {
	private              bool
	foreign, foreignSize uintptr
}

type builder struct {
	plans plans
	plan  *plan
}

func (b *builder) slot(t reflect.Type, offset uintptr, kind slotKind, at place) *slot {
	b.plan.slots = append(b.plan.slots, slot{
		offset: offset, size: t.Size(), kind: kind, typ: t,
		private: at.private, foreign: at.foreign, foreignSize: at.foreignSize,
	})
	return &b.plan.slots[len(b.plan.slots)-1]
}

// add appends the slots of a value of type t at an offset.
func (b *builder) add(t reflect.Type, offset uintptr, at place) {
	switch t.Kind() {
	case reflect.String:
		b.slot(t, offset, slotString, at)
	case reflect.Slice:
		b.slot(t, offset, slotSlice, at)
	case reflect.Pointer:
		if isTypeDescriptor(t.Elem()) {
			b.slot(t, offset, slotTypePtr, at)
		} else {
			b.slot(t, offset, slotPointer, at)
		}
	case reflect.Interface:
		b.slot(t, offset, slotInterface, at)
	case reflect.Map:
		b.slot(t, offset, slotMap, at)
	case reflect.Chan:
		b.slot(t, offset, slotChan, at)
	case reflect.Func:
		b.slot(t, offset, slotFunc, at)
	case reflect.UnsafePointer:
		b.slot(t, offset, slotResource, at).why = "an unsafe.Pointer"
	case reflect.Array:
		b.addArray(t, offset, at)
	case reflect.Struct:
		b.addStruct(t, offset, at)
	}
}

func (b *builder) addArray(t reflect.Type, offset uintptr, at place) {
	elem := b.plans.of(t.Elem())
	if elem.plain() || t.Len() == 0 {
		return
	}
	if t.Len() <= arrayUnrolledMax {
		for i := range t.Len() {
			b.add(t.Elem(), offset+uintptr(i)*elem.size, at)
		}
		return
	}
	s := b.slot(t, offset, slotArray, at)
	s.count = t.Len()
}

func (b *builder) addStruct(t reflect.Type, offset uintptr, at place) {
	if at.foreignSize == 0 && t.PkgPath() != "" && t.PkgPath() != ownPackage {
		at.foreign, at.foreignSize = offset, t.Size()
	}
	if b.addSpecial(t, offset, at) {
		return
	}
	for i := range t.NumField() {
		field := t.Field(i)
		inside := at
		if at.foreignSize != 0 && !field.IsExported() {
			inside.private = true
		}
		b.add(field.Type, offset+field.Offset, inside)
	}
}

// Arrays up to this length are so many slots; longer ones are one slot.
const arrayUnrolledMax = 16

// ownPackage is where the cells' own types are; in tests it is this one.
var ownPackage = "main"

// addSpecial knows the types of the standard library whose memory is not their value.
func (b *builder) addSpecial(t reflect.Type, offset uintptr, at place) bool {
	path, name := t.PkgPath(), t.Name()
	if path == "" || path == ownPackage {
		return false
	}
	if why := resourceOf(t); why != "" {
		b.slot(t, offset, slotResource, at).why = why
		return true
	}
	switch path {
	case "sync":
		return b.addSync(t, name, offset, at)
	case "sync/atomic":
		if strings.HasPrefix(name, "Pointer[") && t.NumField() > 0 {
			return b.addAtomicPointer(t, offset, at)
		}
	case "internal/sync":
		if name == "Mutex" {
			b.slot(t, offset, slotBusy, at)
			return true
		}
	case "time":
		if name == "Time" {
			b.slot(t, offset, slotTime, at)
			field, _ := t.FieldByName("loc")
			b.slot(field.Type, offset+field.Offset, slotPointer, at)
			return true
		}
	case "net/netip":
		if name == "Addr" {
			b.slot(t, offset, slotBinary, at)
			return true
		}
	}
	return false
}

func (b *builder) addSync(t reflect.Type, name string, offset uintptr, at place) bool {
	switch name {
	case "Mutex", "RWMutex", "WaitGroup":
		b.slot(t, offset, slotBusy, at)
	case "Map":
		b.slot(t, offset, slotSyncMap, at)
	case "Pool":
		b.clearBut(t, "New", offset, at)
	case "Cond":
		b.clearBut(t, "L", offset, at)
	default:
		return false
	}
	return true
}

// clearBut keeps one field of a struct.
func (b *builder) clearBut(t reflect.Type, name string, offset uintptr, at place) {
	field, _ := t.FieldByName(name)
	end := field.Offset + field.Type.Size()
	s := b.slot(t, offset, slotClear, at)
	s.size = field.Offset
	s = b.slot(t, offset+end, slotClear, at)
	s.size = t.Size() - end
	b.add(field.Type, offset+field.Offset, at)
}

// addAtomicPointer finds the type that an atomic.Pointer points to in its first field, which is
// an array of no pointers.
func (b *builder) addAtomicPointer(t reflect.Type, offset uintptr, at place) bool {
	first, value := t.Field(0).Type, t.Field(t.NumField()-1)
	if first.Kind() != reflect.Array || value.Type.Kind() != reflect.UnsafePointer {
		return false
	}
	b.slot(first.Elem(), offset+value.Offset, slotPointer, at)
	return true
}

// resourceOf says what a type stands for that ends with its process.
func resourceOf(t reflect.Type) string {
	path, name := t.PkgPath(), t.Name()
	base, _, _ := strings.Cut(name, "[")
	return resources[path+"."+base]
}

var resources = map[string]string{
	"os.File":           "an open file",
	"os.Root":           "an open directory",
	"os.Process":        "a process",
	"internal/poll.FD":  "an open file or connection",
	"time.Timer":        "a timer",
	"time.Ticker":       "a timer",
	"unique.Handle":     "a unique handle",
	"weak.Pointer":      "a weak pointer",
	"hash/maphash.Seed": "a seed of this process",
	"hash/maphash.Hash": "a hash with a seed of this process",
	"runtime.Cleanup":   "a cleanup",
	"runtime.Pinner":    "a pinner",
	"reflect.Value":     "a reflect.Value",
}

// isTypeDescriptor recognises what the runtime knows of a type: it is part of the program.
func isTypeDescriptor(t reflect.Type) bool {
	switch t.PkgPath() {
	case "internal/abi":
		return t.Name() == "Type"
	case "reflect", "internal/reflectlite":
		return t.Name() == "rtype"
	}
	return false
}

// typeOfDescriptor makes a reflect.Type of a pointer to a description.
func typeOfDescriptor(p unsafe.Pointer) reflect.Type {
	value := any(nil)
	(*eface)(unsafe.Pointer(&value)).typ = p
	return reflect.TypeOf(value)
}

func descriptorOf(t reflect.Type) unsafe.Pointer {
	value := any(t)
	return (*eface)(unsafe.Pointer(&value)).data
}

// The words of an interface.
type eface struct {
	typ, data unsafe.Pointer
}

type stringHeader struct {
	data   unsafe.Pointer
	length int
}

type sliceHeader struct {
	data             unsafe.Pointer
	length, capacity int
}

// isDirect tells whether an interface holds a value of the type in its own data word.
func isDirect(t reflect.Type) bool {
	value := reflect.New(t).Elem().Interface()
	return (*eface)(unsafe.Pointer(&value)).data == nil
}
