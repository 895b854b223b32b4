package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/table"
)

// FuzzText prints any text in every way in which a text of the file's is
// printed: in a row, as a field, in an error, in a hint, as the word of a status.
func FuzzText(f *testing.F) {
	for _, text := range []string{"plain", "two\nlines\r\nand\ttab", "\x1b[2J\x1b]0;title\a", "\xff\xfe\x00", "\u202egnp.exe\u2066", "\u2028\u0085\u009b31m", "\x1b[1mm\x1b",
		"e\u0301\u200d\u2764\ufe0f", "世界", "\ufeff\U000e0001", "it's \\x1b", strings.Repeat("long\n", 500), "segno: segno: ", "7", "+7", "0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var out, errOut bytes.Buffer
		a := &app{stdout: &out, stderr: &errOut, db: text}
		must(t, a.table(table.Row{"name", "status", "remark", "n"}, []table.Row{{text, status(text), brief(text, 60), 1}, {"x", "y", "z", 2}}))
		if got := strings.Count(out.String(), "\n"); got != 3 {
			t.Errorf("%q in a table: got = %d lines, want 3:\n%s", text, got, out.String())
		}
		out.Reset()
		a.note("see %s", quoted(text))
		if got := strings.Count(errOut.String(), "\n"); got != 1 {
			t.Errorf("%q in a hint: got = %d lines, want 1:\n%s", text, got, errOut.String())
		}
		errOut.Reset()
		must(t, a.fields("name", text, "data", pretty(json.RawMessage(text))))
		a.report(nil, failed(errors.New(text), ""))
		sane(t, []string{text}, result{exitFailed, out.String(), errOut.String()})
		if raw := asJSON(json.RawMessage(text)); !json.Valid(raw) {
			t.Errorf("%q in a document: got = %s, want JSON", text, raw)
		}
		if id, err := runID(text); err == nil && id < 1 || err != nil && !strings.Contains(err.Error(), "is no run id") {
			t.Errorf("%q as a run id: got = %d, %v", text, id, err)
		}
	})
}

// A path in a hint is for pasting: the shell must see the path again.
func TestQuotedIsWhatTheShellReads(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	for _, path := range []string{"app.db", "my app.db", "it's", `a\nb`, "two\nlines", "\x1b[2J'\\", "\xff\u202e", "$(id) `id` \"", "世界"} {
		out, err := exec.Command(bash, "-c", "printf %s "+quoted(path)).Output()
		if err != nil || string(out) != path {
			t.Errorf("%q: got = %q (%v) from %s", path, out, err, quoted(path))
		}
	}
}

// A run whose data is no JSON, because somebody has overwritten it, does not
// keep the others from being printed.
func TestDataThatIsNoJSONIsPrintedAsAString(t *testing.T) {
	db := fuzzWorld(t)
	hostile := open(t, db)
	for _, data := range []string{"\xff{", ""} {
		if _, err := hostile.Exec("UPDATE _segno_run SET data = CAST(? AS TEXT) WHERE run = 1", []byte(data)); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"runs", "list"}, {"runs", "show", "1"}} {
			r := segnoCommand(t, append(args, "-o", "json", "--db", db)...)
			if r.code != exitOK || !json.Valid([]byte(r.out)) {
				t.Errorf("segno %v of data %q: got = %d, %s%s, want JSON", args, data, r.code, r.out, r.errOut)
			}
		}
	}
}

// A document has times of RFC 3339, which ends with the year 9999.
func TestNextEndsWithTheLastYear(t *testing.T) {
	r := segnoCommand(t, "schedules", "next", "every 2562047h", "-n", "100", "-o", "json", "--from", "2026-01-01")
	var plan schedulePlan
	if err := json.Unmarshal([]byte(r.out), &plan); err != nil || r.code != exitOK || len(plan.Next) != 27 {
		t.Errorf("got = %d times, %v, exit code %d %s, want 27", len(plan.Next), err, r.code, r.errOut)
	}
	r = segnoCommand(t, "schedules", "next", "@daily", "--from", "9999-12-31T23:59:59-01:00", "-o", "json")
	if r.code != exitUsage || !strings.Contains(r.errOut, "is no time") {
		t.Errorf("from the year 10000: got = %d %s, want it refused", r.code, r.errOut)
	}
}

// brokenPipe is an output that nobody reads any more.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// An output that cannot be written is not a fault of the command line.
func TestABrokenOutputIsAFailureNotAUsageError(t *testing.T) {
	for _, args := range [][]string{{"schedules", "explain", "@daily"}, {"schedules", "explain", "@daily", "-o", "json"}, {"schedules", "next", "@daily"}} {
		var errOut bytes.Buffer
		code := run(t.Context(), args, strings.NewReader(""), brokenPipe{}, &errOut)
		if code != exitFailed || !strings.Contains(errOut.String(), "broken pipe") || strings.Contains(errOut.String(), "--help") {
			t.Errorf("segno %v: got = %d %s, want %d", args, code, errOut.String(), exitFailed)
		}
	}
}
