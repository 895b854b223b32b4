package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// The run ids of the world.
const (
	strayRun   = "1"
	cleanRun   = "8"
	missingRun = "4711"
)

func TestReadingCommands(t *testing.T) {
	world(t, func(t *testing.T, db string) {
		t.Setenv("SEGNO_DB", db)
		before := files(t, filepath.Dir(db))
		for name, args := range map[string][]string{
			"flows-list":         {"flows", "list"},
			"flows-list-json":    {"flows", "list", "-o", "json"},
			"flows-show-tripped": {"flows", "show", "flaky"},
			"flows-show-paused":  {"flows", "show", "nightly"},
			"flows-show-json":    {"flows", "show", "nightly", "-o", "json"},
			"runs-list":          {"runs", "list"},
			"runs-list-page":     {"runs", "list", "--flow", "orders", "--limit", "2"},
			"runs-list-status":   {"runs", "list", "--status", "failed,undo_failed", "--status", "stuck"},
			"runs-list-none":     {"runs", "list", "--status", "waiting"},
			"runs-list-json":     {"runs", "list", "--flow", "orders", "-o", "json"},
			"runs-none-json":     {"runs", "list", "--status", "waiting", "-o", "json"},
			"runs-show":          {"runs", "show", cleanRun},
			"runs-show-stuck":    {"runs", "show", strayRun},
			"runs-show-json":     {"runs", "show", cleanRun, "-o", "json"},
			"runs-history":       {"runs", "history", cleanRun},
			"runs-history-json":  {"runs", "history", cleanRun, "-o", "json"},
			"complete-flows":     {"__complete", "flows", "show", ""},
			"complete-runs":      {"__complete", "runs", "history", ""},
			"complete-status":    {"__complete", "runs", "list", "--status", ""},
		} {
			r := segnoCommand(t, args...)
			if r.code != exitOK {
				t.Errorf("segno %s: exit code: got = %d, want %d", name, r.code, exitOK)
			}
			golden(t, name, db, r)
		}
		if after := files(t, filepath.Dir(db)); after != before {
			t.Error("reading has changed the folder")
		}
	})
}

func TestTimesInJSONAreRFC3339UTC(t *testing.T) {
	world(t, func(t *testing.T, db string) {
		r := segnoCommand(t, "runs", "history", cleanRun, "-o", "json", "--db", db)
		var entries []struct{ At string }
		must(t, json.Unmarshal([]byte(r.out), &entries))
		if len(entries) == 0 {
			t.Fatal("no entries")
		}
		for _, e := range entries {
			at, err := time.Parse(time.RFC3339Nano, e.At)
			if err != nil || !strings.HasSuffix(e.At, "Z") || at.Year() != 2000 {
				t.Errorf("got = %q (%v), want RFC 3339 in UTC", e.At, err)
			}
		}
	})
}

// A live owner goes on while commands read its file, and does not notice them.
func TestReadingBesideALiveOwner(t *testing.T) {
	db := filepath.Join(t.TempDir(), "app.db")
	running := start(t, db)
	id := trigger(t, running, "orders", load{Name: "tired", Mood: "sleepy"})
	for i := range 20 {
		trigger(t, running, "orders", load{Name: fmt.Sprint("busy ", i)})
		for _, args := range [][]string{{"flows", "list"}, {"runs", "list"}, {"runs", "history", fmt.Sprint(id)}} {
			if r := segnoCommand(t, append(args, "--db", db)...); r.code != exitOK {
				t.Fatalf("segno %v: got = %d, want %d: %s", args, r.code, exitOK, r.errOut)
			}
		}
	}
	r := segnoCommand(t, "doctor", "--db", db)
	if r.code != exitOK || !strings.Contains(r.out, fmt.Sprintf("alive: process %d", os.Getpid())) {
		t.Errorf("doctor: got = %d, want %d and a live owner:\n%s", r.code, exitOK, r.out)
	}
	must(t, running.Stop(context.Background()))
	if r := segnoCommand(t, "doctor", "--db", db); !strings.Contains(r.out, "stopped by itself") {
		t.Errorf("doctor after Stop: got =\n%s", r.out)
	}
	if _, err := os.Stat(db + "-wal"); err == nil {
		t.Error("a write-ahead log is left behind")
	}
}

// A Reader that outlives an owner sees what the next one has done.
func TestReaderSeesTheNextOwner(t *testing.T) {
	db := filepath.Join(t.TempDir(), "app.db")
	must(t, start(t, db).Stop(context.Background()))
	r, err := segno.OpenReader(t.Context(), db)
	must(t, err)
	defer r.Close()
	for want := int64(1); want <= 2; want++ {
		running := start(t, db)
		trigger(t, running, "orders", load{Name: fmt.Sprint(want), Mood: "sleepy"})
		for _, when := range []string{"with its owner alive", "at rest"} {
			f, err := r.Status(t.Context(), "orders")
			must(t, err)
			if f.RunCount != want {
				t.Errorf("%s: runs: got = %d, want %d", when, f.RunCount, want)
			}
			must(t, running.Stop(context.Background()))
		}
	}
}

func TestExitCodes(t *testing.T) {
	world(t, func(t *testing.T, db string) {
		dir := t.TempDir()
		alien := filepath.Join(dir, "alien.db")
		must(t, os.WriteFile(alien, []byte("this is a text, and longer than the header of a database is, which has a hundred bytes"), 0o600))
		for _, c := range []struct {
			name string
			args []string
			want int
			says string
		}{
			{"help", nil, exitOK, ""},
			{"version", []string{"version"}, exitOK, ""},
			{"unknown command", []string{"no-such-command"}, exitUsage, "see: segno --help"},
			{"unknown subcommand", []string{"flows", "bogus"}, exitUsage, "list, show"},
			{"no subcommand", []string{"runs"}, exitUsage, "list, show, history"},
			{"unknown flag", []string{"flows", "list", "--bogus"}, exitUsage, "see: segno flows list --help"},
			{"no argument", []string{"runs", "show", "--db", db}, exitUsage, "needs one RUN"},
			{"bad run id", []string{"runs", "show", "x", "--db", db}, exitUsage, "segno runs list"},
			{"bad status", []string{"runs", "list", "--status", "bogus", "--db", db}, exitUsage, "pending,running"},
			{"bad limit", []string{"runs", "list", "--limit", "0", "--db", db}, exitUsage, "from 1"},
			{"bad output", []string{"flows", "list", "-o", "yaml", "--db", db}, exitUsage, "table, json"},
			{"no database", []string{"flows", "list"}, exitUsage, "--db FILE or SEGNO_DB"},
			{"no kills", []string{"demo", "--kills", "0"}, exitUsage, "from 1"},
			{"no file", []string{"flows", "list", "--db", filepath.Join(dir, "none.db")}, exitNotFound, "segno demo"},
			{"no file to cure", []string{"doctor", "--db", filepath.Join(dir, "none.db")}, exitNotFound, "segno demo"},
			{"no such flow", []string{"flows", "show", "bogus", "--db", db}, exitNotFound, "segno flows list"},
			{"no such flow of runs", []string{"runs", "list", "--flow", "bogus", "--db", db}, exitNotFound, "segno flows list"},
			{"no such run", []string{"runs", "show", missingRun, "--db", db}, exitNotFound, "segno runs list"},
			{"no history", []string{"runs", "history", missingRun, "--db", db}, exitNotFound, "segno runs list"},
			{"no input", []string{"demo", "--input", filepath.Join(dir, "none")}, exitNotFound, "file of lines"},
			{"not a database", []string{"runs", "list", "--db", alien}, exitFailed, "not an SQLite file"},
			{"the demo's file exists", []string{"demo", "--db", db}, exitRefused, "give a new name"},
			{"a worker by hand", []string{"demo-worker"}, exitFailed, "started by the demo only"},
		} {
			r := segnoCommand(t, c.args...)
			if r.code != c.want || !strings.Contains(r.errOut, c.says) {
				t.Errorf("%s: got = %d, want %d and %q in:\n%s", c.name, r.code, c.want, c.says, r.errOut)
			}
		}
	})
}
