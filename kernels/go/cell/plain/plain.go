// Package plain hands over results of basic types. It links little, so that a cell that computes a
// number does not link a printer for everything.
package plain

import (
	"strconv"

	"crownest/cell"
)

func text(s string) { cell.Result(cell.Entry{MIME: "text/plain", Text: s}) }

// Int hands over an integer.
func Int(n int64) { text(strconv.FormatInt(n, 10)) }

// Uint hands over an integer without a sign.
func Uint(n uint64) { text(strconv.FormatUint(n, 10)) }

// Bool hands over a truth value.
func Bool(is bool) { text(strconv.FormatBool(is)) }

// String hands over a text.
func String(s string) { text(s) }

// Float hands over a number of 32 or 64 bits as fmt prints it.
func Float(f float64, bits int) {
	s := strconv.FormatFloat(f, 'g', -1, bits)
	// fmt turns to exponents at 21 digits, strconv's shortest form at fewer.
	if exponent := strconv.FormatFloat(f, 'e', -1, bits); len(exponent) > 0 {
		if x := exponentOf(exponent); x >= -4 && x < 21 {
			s = strconv.FormatFloat(f, 'f', -1, bits)
		}
	}
	text(s)
}

// exponentOf reads the exponent of 1.5e+07; out of range for what is no number.
func exponentOf(s string) int {
	for i := range len(s) {
		if s[i] == 'e' {
			x, err := strconv.Atoi(s[i+1:])
			if err != nil {
				return 99
			}
			return x
		}
	}
	return 99
}
