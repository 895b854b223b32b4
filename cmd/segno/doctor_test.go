package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

func TestDoctor(t *testing.T) {
	world(t, func(t *testing.T, db string) {
		before := files(t, filepath.Dir(db))
		host, err := os.Hostname()
		must(t, err)
		mask := strings.NewReplacer(fmt.Sprintf("process %d on %s", os.Getpid(), host), "process 42 on here")
		for name, args := range map[string][]string{"doctor": {"doctor"}, "doctor-json": {"doctor", "-o", "json"}} {
			r := segnoCommand(t, append(args, "--db", db)...)
			if r.code != exitErrors {
				t.Errorf("exit code: got = %d, want %d", r.code, exitErrors)
			}
			r.out = mask.Replace(r.out)
			golden(t, name, db, r)
		}
		if after := files(t, filepath.Dir(db)); after != before {
			t.Error("the doctor has changed the folder")
		}
	})
}

// diagnose returns the worst severity and the checks that are not fine.
func diagnose(t *testing.T, db string) (int, map[string]severity) {
	t.Helper()
	r := segnoCommand(t, "doctor", "-o", "json", "--db", db)
	var d diagnosis
	if err := json.Unmarshal([]byte(r.out), &d); err != nil {
		t.Fatalf("%v in:\n%s%s", err, r.out, r.errOut)
	}
	bad := map[string]severity{}
	for _, f := range d.Findings {
		if f.Severity != fine {
			bad[f.Check] = f.Severity
		}
	}
	return r.code, bad
}

// spoil runs SQL on a file as nobody should.
func spoil(t *testing.T, db, query string) {
	t.Helper()
	conn, err := sql.Open("sqlite", db)
	must(t, err)
	defer conn.Close()
	conn.SetMaxOpenConns(1)
	if _, err := conn.Exec(query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// mixUp exchanges two indexes, so that neither agrees with its table.
const mixUp = `PRAGMA writable_schema = on; UPDATE sqlite_schema
SET rootpage = (SELECT sum(rootpage) FROM sqlite_schema WHERE name IN ('_segno_run_flow', '_segno_run_slot')) - rootpage
WHERE name IN ('_segno_run_flow', '_segno_run_slot')`

func TestDoctorFinds(t *testing.T) {
	healthy := func(t *testing.T) string {
		db := filepath.Join(t.TempDir(), "app.db")
		running := start(t, db)
		trigger(t, running, "orders", load{Name: "tired", Mood: "sleepy"})
		must(t, running.Stop(t.Context()))
		return db
	}
	for _, c := range []struct {
		name, sql string
		code      int
		check     string
		want      severity
	}{
		{name: "nothing", sql: "SELECT 1", code: exitOK},
		{"a dead owner", "UPDATE _segno_owner SET clean = 0", exitWarnings, "owner", warning},
		{"crashes", "UPDATE _segno_run SET crashes = 2 WHERE ended IS NULL", exitWarnings, "crashes", warning},
		{"an overdue run", "UPDATE _segno_run SET wake = 1 WHERE ended IS NULL", exitWarnings, "overdue", warning},
		{"an overdue slot", "UPDATE _segno_flow SET next = 1 WHERE id = 'sweep'", exitWarnings, "overdue", warning},
		{"a tripped flow", "UPDATE _segno_flow SET outcome = 'tripped', next = 1 WHERE id = 'sweep'", exitWarnings, "tripped flows", warning},
		{"an orphaned flow", "UPDATE _segno_flow SET orphaned = 1 WHERE id = 'sweep'", exitWarnings, "orphaned", warning},
		{"a stuck run", "UPDATE _segno_run SET status = 'stuck', stuck_reason = 'why' WHERE ended IS NULL", exitErrors, "stuck runs", serious},
		{"an undo that failed", "UPDATE _segno_run SET status = 'undo_failed', ended = 1, wake = NULL WHERE ended IS NULL", exitErrors, "failed undos", serious},
		{"a dangling reference", "PRAGMA foreign_keys = off; UPDATE _segno_run SET flow = 99 WHERE ended IS NULL", exitErrors, "foreign keys", serious},
		{"another journal mode", "PRAGMA journal_mode = DELETE", exitErrors, "journal mode", serious},
		{"a newer schema", "INSERT INTO _segno_schema (version_id, is_applied) VALUES (9999, 1)", exitErrors, "file", serious},
		{"another application", "PRAGMA application_id = 7", exitErrors, "file", serious},
		{"a lost index", mixUp, exitErrors, "integrity", serious},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := healthy(t)
			spoil(t, db, c.sql)
			code, bad := diagnose(t, db)
			if code != c.code || bad[c.check] != c.want {
				t.Errorf("got = %d %v, want %d and %q for %q", code, bad, c.code, c.want, c.check)
			}
		})
	}
}

// An undo that failed and was accepted is nobody's trouble any more.
func TestDoctorKnowsAcknowledgedRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := filepath.Join(t.TempDir(), "app.db")
		running := start(t, db)
		id := trigger(t, running, "orders", load{Name: "worse", Mood: "dirty"})
		_, _ = running.WaitRun(t.Context(), id)
		must(t, running.AckRun(t.Context(), id, "paid back by hand"))
		must(t, running.Stop(t.Context()))
		if code, bad := diagnose(t, db); code != exitOK {
			t.Errorf("got = %d %v, want %d", code, bad, exitOK)
		}
	})
}
