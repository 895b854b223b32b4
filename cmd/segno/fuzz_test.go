package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/segnodev/segno"
)

// sane fails unless a result has a known exit code, a message if something went
// wrong, and no character that a terminal acts upon.
func sane(t *testing.T, args []string, r result) {
	t.Helper()
	if r.code < exitOK || r.code > exitErrors {
		t.Errorf("segno %q: exit code: got = %d, want one that is documented", args, r.code)
	}
	if r.code != exitOK && r.code < exitWarnings && !strings.HasPrefix(r.errOut, "segno: ") {
		t.Errorf("segno %q: exit code %d: got = %q, want a message", args, r.code, r.errOut)
	}
	for _, text := range []string{r.out, r.errOut} {
		if i := strings.IndexFunc(text, acts); i >= 0 || !utf8.ValidString(text) {
			t.Errorf("segno %q: got = %q, want text that can be printed", args, text[max(i, 0):])
		}
	}
}

// acts reports whether a terminal does more with a rune than show it.
func acts(r rune) bool {
	return r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
}

// fuzzWorld is the world in a file that outlives its bubble.
func fuzzWorld(t testing.TB) string {
	t.Helper()
	db := filepath.Join(t.TempDir(), "app.db")
	must(t, seed(context.Background(), db))
	return db
}

// seed makes a file with a flow and a run or two.
func seed(ctx context.Context, db string) error {
	s := segno.New(db, segno.Options{SmallWAL: true})
	if err := s.Add(segno.Flow{ID: "orders", Workflow: steps, Overlap: segno.Allow(10)}); err != nil {
		return err
	}
	r, err := s.Start(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{"good", "better"} {
		id, err := r.Trigger(ctx, "orders", segno.Trigger{Input: load{Name: name}, Key: name})
		if err != nil {
			return err
		}
		if _, err := r.WaitRun(ctx, id); err != nil {
			return err
		}
	}
	return r.Stop(ctx)
}

// FuzzRunArguments gives anything as the id of a run, the name of a flow, and
// the flags of runs list. What is no such thing is refused as bad usage or as
// not found, and says so.
func FuzzRunArguments(f *testing.F) {
	db := fuzzWorld(f)
	for _, id := range []string{"1", "2", "0", "-1", "+1", "0x1", "9223372036854775807", "9223372036854775808", "", "1\x1b[2J", "１", "--", "-h"} {
		f.Add(id, "orders", "failed,stuck", "3", "20")
	}
	for _, flow := range []string{"", "-", "--help", "orders\n", "\x1b]0;x\a", "\xff", "' OR 1=1 --", "%s%n", strings.Repeat("x", 5000)} {
		f.Add("1", flow, "completed", "0", "1")
	}
	for _, n := range []string{"0", "-1", "9223372036854775807", "-9223372036854775808", "1e3", "", "0b1", "1_000", "\x00"} {
		f.Add("1", "orders", `"a,b`, n, n)
		f.Add("1", "orders", "completed,,"+n, n, n)
	}
	f.Fuzz(func(t *testing.T, id, flow, status, before, limit string) {
		for _, args := range [][]string{
			{"runs", "list", "--flow=" + flow, "--before=" + before, "--limit=" + limit},
			{"runs", "list", "--status=" + status, "--limit=" + limit, "-o", "json"},
			{"runs", id, flow}, {flow, status}, {"runs", "list", status},
			{"runs", "show", "--", id}, {"runs", "history", "-o", "json", "--", id}, {"flows", "show", "--", flow},
		} {
			r := segnoCommand(t, append([]string{"--db=" + db}, args...)...)
			sane(t, args, r)
			if r.code == exitFailed {
				t.Errorf("segno %q: got = %d: %s, want it served or refused", args, r.code, r.errOut)
			}
			if r.code == exitOK && slices.Contains(args, "json") && !json.Valid([]byte(r.out)) {
				t.Errorf("segno %q: got = %q, want JSON", args, r.out)
			}
		}
	})
}

// FuzzScheduleArguments gives anything to the commands about schedules.
func FuzzScheduleArguments(f *testing.F) {
	for _, expr := range []string{"30 2 * * *", "every 1h", "every 2562047h47m", "fixed delay 1ms", "at 9999-12-31T23:59:59Z", "0 0 30 2 *", "", "\x1b[31m", "at \xff",
		"TZ=\x1b 0 0 * * *", "CRON_TZ=../../etc/passwd @daily", "@daily gap=\u202e"} {
		f.Add(expr, "", "", "3")
		f.Add(expr, "America/New_York", "2026-03-07", "10")
		f.Add(expr, "Asia/Kathmandu", "9999-12-31T23:59:59-01:00", "100")
		f.Add(expr, "\x1b\n", "\x1b", "-1")
		f.Add(expr, "../../etc/passwd", "0000-01-01", "99999999999999999999")
	}
	f.Fuzz(func(t *testing.T, expr, zone, from, n string) {
		if len(n) > 2 {
			n = n[:2]
		}
		for _, args := range [][]string{
			{"next", "--zone=" + zone, "--from=" + from, "-n=" + n, "--", expr},
			{"next", "--zone=" + zone, "--from=" + from, "-n=" + n, "-o", "json", "--", expr},
			{"explain", "--zone=" + zone, "--", expr},
			{"explain", "--zone=" + zone, "-o", "json", "--", expr},
		} {
			r := segnoCommand(t, append([]string{"schedules"}, args...)...)
			sane(t, args, r)
			if r.code != exitOK && r.code != exitUsage {
				t.Errorf("segno schedules %q: got = %d: %s, want it served or refused", args, r.code, r.errOut)
			}
			if r.code == exitOK && slices.Contains(args, "-o") && !json.Valid([]byte(r.out)) {
				t.Errorf("segno schedules %q: got = %q, want JSON", args, r.out)
			}
		}
	})
}

// open opens a file to tamper with it.
func open(t testing.TB, db string) *sql.DB {
	t.Helper()
	conn, err := sql.Open("sqlite", db)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// FuzzOutput has any text as the name of a flow, the state, the key, the error
// and the data of a run. Lists have a line for each row, documents are JSON, and
// nothing that a terminal acts upon gets through.
func FuzzOutput(f *testing.F) {
	db := fuzzWorld(f)
	hostile := open(f, db)
	for _, text := range []string{"plain", "two\nlines\r\nand \ttab", "\x1b[2J\x1b]0;title\a", "\xff\xfe", "a\x00b", "\u202egnp.exe", "\u2028\u2029\u0085\u009b31m",
		`{"a":"\u001b"}`, "  ", "{", "\x1b[", "\x1b[31", "\x1b[1mm\x1b", "e\u0301\u200d\u2764\ufe0f", "世界", "\ufeff", strings.Repeat("long ", 2000), `\x1b'"$(id)`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) == 0 {
			text = []byte("x")
		}
		for _, query := range []string{
			"UPDATE _segno_flow SET id = CAST(?1 AS TEXT), last_error = CAST(?1 AS TEXT), schedule = CAST(?1 AS TEXT), paused = 1, pause_note = CAST(?1 AS TEXT)",
			"UPDATE _segno_run SET state = CAST(?1 AS TEXT), error = CAST(?1 AS TEXT), stuck_reason = CAST(?1 AS TEXT), note = CAST(?1 AS TEXT), data = CAST(?1 AS TEXT), cause = CAST(?1 AS TEXT)",
			"UPDATE _segno_run SET status = 'stuck', ended = NULL, key = CAST(?1 AS TEXT) WHERE run = 2",
			"UPDATE _segno_run SET status = CAST(?1 AS TEXT) WHERE run = 1",
			"UPDATE _segno_journal SET state = CAST(?1 AS TEXT), error = CAST(?1 AS TEXT), data = CAST(?1 AS TEXT), kind = CAST(?1 AS TEXT)",
		} {
			if _, err := hostile.Exec(query, text); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		}
		fuzzLists(t, db, string(text))
	})
}

// fuzzLists looks at every command that prints what is in the file.
func fuzzLists(t *testing.T, db, text string) {
	t.Helper()
	rows := map[string]int{"flows list": 2, "runs list": 3, "runs history 1": 4, "runs history 2": 4}
	for _, words := range []string{"flows list", "runs list", "runs history 1", "runs history 2", "runs show 1", "runs show 2"} {
		args := append(strings.Fields(words), "--db="+db)
		r := segnoCommand(t, args...)
		sane(t, args, r)
		if got, want := strings.Count(r.out, "\n"), rows[words]; r.code != exitOK || want > 0 && got != want {
			t.Errorf("segno %s with %q: got = %d lines and exit code %d, want %d:\n%s%s", words, text, got, r.code, want, r.out, r.errOut)
		}
		if r = segnoCommand(t, append(args, "-o", "json")...); r.code != exitOK || !json.Valid([]byte(r.out)) {
			t.Errorf("segno %s -o json with %q: got = %d %s%s, want JSON", words, text, r.code, r.out, r.errOut)
		}
	}
	for _, args := range [][]string{{"doctor"}, {"flows", "show", "--", text}, {"__complete", "flows", "show", ""}, {"__complete", "runs", "show", ""}} {
		r := segnoCommand(t, append([]string{"--db=" + db}, args...)...)
		if args[0] == "__complete" {
			r.out = strings.ReplaceAll(r.out, "\t", " ")
		}
		sane(t, args, r)
		if args[0] == "flows" && r.code != exitOK && !strings.Contains(text, "\x00") {
			t.Errorf("segno flows show %q: got = %d %s, want it found", text, r.code, r.errOut)
		}
	}
}
