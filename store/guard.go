package store

import (
	"fmt"
	"strings"
)

// refused are the statements that would end, escape or reconfigure the shared
// transaction.
var refused = []string{"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "PRAGMA", "VACUUM"}

// allowed checks every statement of a query by its first word.
func allowed(query string) error {
	words := &words{text: query}
	for {
		first := words.next()
		for first == ";" {
			first = words.next()
		}
		switch {
		case first == "":
			return nil
		case first == "CREATE":
			words.skipCreate()
			continue
		case contains(refused, first):
			return fmt.Errorf("%w: %s; the commit it joins is shared with others", ErrTx, first)
		}
		words.skipTo(";")
	}
}

func contains(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}

// words splits SQL into upper-case words and single punctuation marks,
// passing over quotes and comments.
type words struct {
	text string
	pos  int
}

// next returns the next word, "" at the end.
func (w *words) next() string {
	for w.pos < len(w.text) {
		rest := w.text[w.pos:]
		switch c := rest[0]; {
		case strings.HasPrefix(rest, "\ufeff"): // a byte order mark is a space to SQLite
			w.pos += len("\ufeff")
		case strings.IndexByte("$@:#", c) >= 0:
			w.pos += parameter(rest)
			return "?"
		case strings.HasPrefix(rest, "--"):
			w.pass(rest, "\n", 2)
		case strings.HasPrefix(rest, "/*"):
			w.pass(rest, "*/", 2)
		case c == '\'' || c == '"' || c == '`':
			w.pass(rest, string(c), 1)
			return "''"
		case c == '[':
			w.pass(rest, "]", 1)
			return "''"
		case isWord(c):
			n := 1
			for n < len(rest) && isWord(rest[n]) {
				n++
			}
			w.pos += n
			return strings.ToUpper(rest[:n])
		case c > ' ':
			w.pos++
			return string(c)
		default:
			w.pos++
		}
	}
	return ""
}

// pass moves behind the next end mark, or to the end of the text.
func (w *words) pass(rest, end string, from int) {
	if i := strings.Index(rest[from:], end); i >= 0 {
		w.pos += from + i + len(end)
		return
	}
	w.pos = len(w.text)
}

func (w *words) skipTo(mark string) {
	for word := w.next(); word != mark && word != ""; word = w.next() {
	}
}

// skipCreate passes over a CREATE statement; a trigger's body has semicolons
// and ends with END.
func (w *words) skipCreate() {
	word := w.next()
	for word == "TEMP" || word == "TEMPORARY" {
		word = w.next()
	}
	if word != "TRIGGER" {
		for word != ";" && word != "" {
			word = w.next()
		}
		return
	}
	// The END of the body stands behind a semicolon; that of a CASE does not.
	for before := ""; word != ""; before, word = word, w.next() {
		if word == "END" && before == ";" {
			return
		}
	}
}

// parameter returns the length of a parameter's name, which may end with
// anything in parentheses, quotes and semicolons included: $name::of(it).
func parameter(s string) int {
	n := 1
	for n < len(s) && (isWord(s[n]) || s[n] == '$' || strings.HasPrefix(s[n:], "::")) {
		if s[n] == ':' {
			n++
		}
		n++
	}
	if n == 1 || n == len(s) || s[n] != '(' {
		return n
	}
	if end := strings.IndexAny(s[n:], ") \t\n\f\r"); end >= 0 {
		return n + end + 1
	}
	return len(s)
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
