package keep

import (
	"reflect"
	"sync"
	"time"
	"unsafe"

	"crownest/cell"
)

// How the few types of the standard library are handled whose memory is not their value.

func rangeSyncMap(p unsafe.Pointer, visit func(key, value any) bool) {
	(*sync.Map)(p).Range(visit)
}

func fillSyncMap(p unsafe.Pointer, keys, values []any) {
	for i := range keys {
		(*sync.Map)(p).Store(keys[i], values[i])
	}
}

// chanContent asks the runtime; without its help it can empty the channel, if nobody else does.
func chanContent(p unsafe.Pointer, t reflect.Type) (cell.Channel, bool) {
	if content, ok := cell.ChanContent(p); ok {
		return content, true
	}
	c := reflect.NewAt(reflect.ChanOf(reflect.BothDir, t.Elem()), unsafe.Pointer(&p)).Elem()
	content := cell.Channel{Capacity: uint(max(c.Cap(), 1))}
	values := reflect.MakeSlice(reflect.SliceOf(t.Elem()), 0, c.Len())
	for {
		value, ok := c.TryRecv()
		if !ok {
			content.Closed = value.IsValid()
			break
		}
		values = reflect.Append(values, value)
	}
	content.Count, content.Buffer = uint(values.Len()), values.UnsafePointer()
	if c.Cap() == 0 {
		content.Capacity = 0
	}
	return content, true
}

// A time.Time as package time lays it out.
type timeHeader struct {
	wall uint64
	ext  int64
	loc  unsafe.Pointer
}

const hasMonotonic = 1 << 63

// clockOrigin is the reading of the system's monotonic clock that this process counts from.
func clockOrigin() int64 {
	reading := cell.Clock()
	if reading == 0 {
		return 0
	}
	now := time.Now()
	return reading - (*timeHeader)(unsafe.Pointer(&now)).ext
}

// moveTime makes a saved time one of this process.
func moveTime(p unsafe.Pointer, ahead int64) {
	if t := (*timeHeader)(p); t.wall&hasMonotonic != 0 {
		t.ext += ahead
	}
}

func marshalBinary(p unsafe.Pointer, t reflect.Type) ([]byte, bool) {
	m, ok := reflect.NewAt(t, p).Interface().(interface{ MarshalBinary() ([]byte, error) })
	if !ok {
		return nil, false
	}
	data, err := m.MarshalBinary()
	return data, err == nil
}

func unmarshalBinary(p unsafe.Pointer, t reflect.Type, data []byte) {
	if m, ok := reflect.NewAt(t, p).Interface().(interface{ UnmarshalBinary([]byte) error }); ok {
		if m.UnmarshalBinary(data) != nil {
			reflect.NewAt(t, p).Elem().SetZero()
		}
	}
}
