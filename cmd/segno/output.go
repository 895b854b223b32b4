package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// outputs are the values of -o.
var outputs = []string{"table", "json"}

// json writes v, whose field names and RFC 3339 UTC times are part of the contract.
func (a *app) json(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return written(enc.Encode(v))
}

// table writes rows under a header, in the style of kubectl.
func (a *app) table(header table.Row, rows []table.Row) error {
	w := a.writer()
	w.AppendHeader(header)
	for _, row := range rows {
		for i := range row {
			row[i] = cell(row[i], oneLine)
		}
		w.AppendRow(row)
	}
	_, err := fmt.Fprintln(a.stdout, w.Render())
	return written(err)
}

// fields writes pairs of a name and a value, leaving out those without a value.
func (a *app) fields(pairs ...any) error {
	w := a.writer()
	for i := 0; i+1 < len(pairs); i += 2 {
		if value := fmt.Sprint(cell(pairs[i+1], lines)); value != "" {
			w.AppendRow(table.Row{pairs[i], value})
		}
	}
	_, err := fmt.Fprintln(a.stdout, w.Render())
	return written(err)
}

// cell is a value as it is printed; only what is painted has escape sequences.
func cell(value any, safe func(string) string) any {
	if v := reflect.ValueOf(value); v.Kind() == reflect.String && v.Type() != reflect.TypeFor[painted]() {
		return safe(v.String())
	}
	return value
}

// written is the error of a write.
func written(err error) error {
	if err == nil {
		return nil
	}
	return failed(err, "")
}

func (a *app) writer() table.Writer {
	w := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatUpper
	w.SetStyle(style)
	w.SuppressTrailingSpaces()
	return w
}

// setColours turns colours on or off: go-pretty would put them into a pipe, too.
func (a *app) setColours() {
	if colourful(a.stdout) {
		text.EnableColors()
	} else {
		text.DisableColors()
	}
}

// colourful reports whether w is a terminal whose user did not ask for NO_COLOR.
func colourful(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// painted is text whose escape sequences are ours.
type painted string

// status colours the word that a flow or a run is described by.
func status(word string) painted {
	colour := text.Colors{}
	switch word {
	case "completed":
		colour = text.Colors{text.FgGreen}
	case "running", "undoing":
		colour = text.Colors{text.FgCyan}
	case "backoff", "cancelled":
		colour = text.Colors{text.FgYellow}
	case "failed", "undo_failed", "stuck", "tripped":
		colour = text.Colors{text.FgRed}
	}
	return painted(colour.Sprint(oneLine(word)))
}

// stamp prints a time as the views round it, empty for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Round(time.Millisecond).Format("2006-01-02 15:04:05.000Z")
}

// due prints a time to come, with how far away it is.
func due(t, now time.Time) string {
	switch d := t.Sub(now).Round(time.Second); {
	case t.IsZero():
		return ""
	case d > 0:
		return fmt.Sprintf("%s (in %v)", stamp(t), d)
	case d < 0:
		return fmt.Sprintf("%s (%v ago)", stamp(t), -d)
	}
	return stamp(t) + " (now)"
}

// brief cuts a text to its first line and to n characters.
func brief(s string, n int) string {
	line, rest, _ := strings.Cut(strings.TrimSpace(s), "\n")
	r := []rune(line)
	if len(r) > n {
		return string(r[:n-1]) + "…"
	}
	if rest != "" {
		return line + " …"
	}
	return line
}

// count prints a number, empty for none.
func count[N int | int64](n N) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
