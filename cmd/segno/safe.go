package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// oneLine makes a text of the file's fit for a terminal and for one line: what
// would move the cursor, end the line or reorder it is written as an escape.
func oneLine(s string) string {
	if printable(s) {
		return s
	}
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		if piece := s[:n]; r == utf8.RuneError && n == 1 || !visible(r) {
			quoted := strconv.QuoteToASCII(piece)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(piece)
		}
		s = s[n:]
	}
	return b.String()
}

// lines is oneLine for each line of a text.
func lines(s string) string {
	parts := strings.Split(strings.ReplaceAll(s, "\t", "    "), "\n")
	for i := range parts {
		parts[i] = oneLine(parts[i])
	}
	return strings.Join(parts, "\n")
}

// printable reports whether a text is fit for a terminal as it is.
func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !visible(r) }) < 0
}

// visible reports whether a rune does no more than to be shown.
func visible(r rune) bool { return unicode.IsGraphic(r) && r != '\u2028' && r != '\u2029' }

// asJSON makes sure that data can be part of a document: what is no JSON is a string.
func asJSON(raw json.RawMessage) json.RawMessage {
	if raw == nil || json.Valid(raw) {
		return raw
	}
	text, _ := json.Marshal(string(raw))
	return text
}
