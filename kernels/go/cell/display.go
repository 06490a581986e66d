package cell

// Longest entry of a bundle that is sent; a longer one is left out and named.
const entryBytesMax = 8 << 20

// An Entry of a MIME bundle: text (base64 for binary types), or JSON.
type Entry struct {
	MIME string
	Text string
	JSON []byte
}

func (e *Entry) size() int {
	if e.JSON != nil {
		return len(e.JSON)
	}
	return len(e.Text)
}

// Result hands over the value of the cell's last expression.
func Result(entries ...Entry) {
	send(appendBundle(append([]byte(nil), `{"ev":"result"`...), entries))
}

// Show displays a bundle. update: it replaces what was shown under the same id.
func Show(id string, update bool, entries ...Entry) {
	b := append([]byte(nil), `{"ev":"display"`...)
	if id != "" {
		b = AppendString(append(b, `,"display_id":`...), id)
	}
	if update {
		b = append(b, `,"update":true`...)
	}
	send(appendBundle(b, entries))
}

// Clear takes displays and output away, at once or when the next comes.
func Clear(wait bool) {
	if wait {
		send([]byte(`{"ev":"clear","wait":true}`))
	} else {
		send([]byte(`{"ev":"clear","wait":false}`))
	}
}

// Notice says something about the run that is no error.
func Notice(code, message string) {
	b := AppendString(append([]byte(nil), `{"ev":"notice","code":`...), code)
	b = AppendString(append(b, `,"message":`...), cut(message, messageBytesMax))
	send(append(b, '}'))
}

// appendBundle ends an event with its data and metadata. What is too long is left out: each entry
// above its limit, then the longest until the rest fits a frame.
func appendBundle(b []byte, entries []Entry) []byte {
	kept := make([]bool, len(entries))
	total := 0
	for i := range entries {
		kept[i] = entries[i].size() <= entryBytesMax
		if kept[i] {
			total += escaped(&entries[i])
		}
	}
	for total > frameBytesMax-4096 {
		longest := -1
		for i := range entries {
			if kept[i] && (longest < 0 || escaped(&entries[i]) > escaped(&entries[longest])) {
				longest = i
			}
		}
		kept[longest] = false
		total -= escaped(&entries[longest])
	}
	b = append(b, `,"data":{`...)
	b = appendEntries(b, entries, kept, func(b []byte, e *Entry) []byte {
		b = append(AppendString(b, e.MIME), ':')
		if e.JSON != nil {
			return append(b, e.JSON...)
		}
		return AppendString(b, e.Text)
	})
	b = append(b, `},"metadata":{`...)
	for i := range kept {
		kept[i] = !kept[i]
	}
	before := len(b)
	b = append(b, `"crownest":{"omitted":[`...)
	start := len(b)
	b = appendEntries(b, entries, kept, func(b []byte, e *Entry) []byte {
		b = AppendString(append(b, `{"mime":`...), e.MIME)
		return append(appendDecimal(append(b, `,"bytes":`...), int64(e.size())), '}')
	})
	if len(b) == start {
		return append(b[:before], `}}`...)
	}
	return append(b, `]}}}`...)
}

func appendEntries(b []byte, entries []Entry, chosen []bool, one func([]byte, *Entry) []byte) []byte {
	first := true
	for i := range entries {
		if chosen[i] {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = one(b, &entries[i])
		}
	}
	return b
}

// escaped is the length of an entry in a frame.
func escaped(e *Entry) int {
	if e.JSON != nil {
		return len(e.JSON) + len(e.MIME) + 16
	}
	n := len(e.Text) + len(e.MIME) + 16
	for i := range len(e.Text) {
		switch c := e.Text[i]; {
		case c == '"' || c == '\\' || c == '\n' || c == '\t':
			n++
		case c < 0x20 || c == 0x7f:
			n += 5
		case c >= 0x80:
			// A byte that is no UTF-8 becomes three.
			n += 2
		}
	}
	return n
}
