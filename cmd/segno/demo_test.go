package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno/cmd/segno/internal/demo"
)

// The claims that the damage below must break, by their beginning.
const (
	claimLines       = "every line"
	claimTransitions = "no transition"
	claimKept        = "streak, window"
	claimWindows     = "no run began"
	claimTrip        = "the flow tripped"
	claimRollbacks   = "every order"
	claimConserved   = "money"
	claimReports     = "every second"
	claimComplete    = "nothing that"
	claimIntegrity   = "SQLite"
)

// TestDemo runs the demo once, with a real SIGKILL, and then damages copies of
// its file to see that the proof can fail.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("the demo takes ten seconds")
	}
	dir := t.TempDir()
	db, input := filepath.Join(dir, "demo.db"), filepath.Join(dir, "input.txt")
	must(t, os.WriteFile(input, []byte(strings.Repeat("R a line\nanother one\n# a comment\n\n", 100)+"without an end"), 0o600))
	began := time.Now()
	r := segnoCommand(t, "demo", "--kills", "1", "--stretch", "3s", "--input", input, "--db", db)
	t.Logf("%v\n%s%s", time.Since(began), r.out, r.errOut)
	if r.code != exitOK {
		t.Fatalf("exit code: got = %d, want %d", r.code, exitOK)
	}
	for _, want := range []string{"KILL 1", "Proof, from the file", "sqlite3 -box " + db} {
		if !strings.Contains(r.out, want) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	if _, err := os.Stat(db + "-wal"); err == nil {
		t.Error("a write-ahead log is left behind")
	}
	if bad := broken(t, db, input, 1); len(bad) > 0 {
		t.Errorf("untouched: got = %q, want no broken claim", bad)
	}
	if bad := broken(t, db, input, 99); !slices.Equal(bad, []string{claimKept}) {
		t.Errorf("a kill that is missing: got = %q, want %q", bad, claimKept)
	}
	testDamage(t, db, input)
}

// broken returns the beginnings of the claims that do not hold.
func broken(t *testing.T, db, input string, kills int) (bad []string) {
	t.Helper()
	findings, err := demo.Prove(t.Context(), db, input, kills)
	must(t, err)
	claims := []string{claimLines, claimTransitions, claimKept, claimWindows, claimTrip, claimRollbacks, claimConserved, claimReports, claimComplete, claimIntegrity}
	if len(findings) != len(claims) {
		t.Fatalf("claims: got = %d, want %d", len(findings), len(claims))
	}
	for i, f := range findings {
		if !strings.HasPrefix(f.Claim, claims[i]) {
			t.Fatalf("claim %d: got = %q, want %q", i, f.Claim, claims[i])
		}
		if f.Err != nil {
			t.Logf("%s: %v", f.Claim, f.Err)
			bad = append(bad, claims[i])
		}
	}
	return bad
}

func testDamage(t *testing.T, db, input string) {
	const (
		rolledBack = "(SELECT run FROM segno_runs WHERE flow = 'orders' AND status = 'failed' ORDER BY run LIMIT 1)"
		entry      = "(SELECT id FROM _segno_journal WHERE run = " + rolledBack + " AND visit = 2 ORDER BY id LIMIT 1)"
		window     = "(SELECT window_after FROM demo_kill ORDER BY kill DESC LIMIT 1)"
	)
	for _, c := range []struct {
		name, sql string
		breaks    []string
	}{
		{"a fact is lost", "DELETE FROM demo_line WHERE line = 7", []string{claimLines}},
		{"a fact is written twice", "INSERT INTO demo_line SELECT * FROM demo_line WHERE line = 7", []string{claimLines}},
		{"a fact is wrong", "UPDATE demo_line SET sum = sum + 1 WHERE line = 7", []string{claimLines}},
		{"a fact is made up", "INSERT INTO demo_line VALUES (9999, 'rule', 1, 1, 1)", []string{claimLines}},
		{"a counter is too high", "UPDATE demo_count SET lines = lines + 1 WHERE kind = 'rule'", []string{claimLines}},
		{"a transition is lost", "DELETE FROM _segno_journal WHERE id = " + entry, []string{claimTransitions}},
		{"a transition is written twice", `INSERT INTO _segno_journal SELECT (SELECT max(id) + 1 FROM _segno_journal), run, visit, kind, state, attempt, version, at, data, cause, error, uncertain, undo, prev, prev_undo
FROM _segno_journal WHERE id = ` + entry, []string{claimTransitions}},
		{"a transition skips a visit", "UPDATE _segno_journal SET visit = visit + 1 WHERE id = " + entry, []string{claimTransitions}},
		{"a run is left unfinished", "UPDATE _segno_run SET status = 'pending', ended = NULL WHERE run = " + rolledBack, []string{claimTransitions, claimRollbacks, claimComplete}},
		{"a streak is forgotten", "UPDATE demo_kill SET streak_after = 0", []string{claimKept, claimWindows}},
		{"a window is moved", "UPDATE demo_kill SET window_after = '2099-01-01T00:00:00.000000Z'", []string{claimKept, claimWindows}},
		{"a kill is forgotten", "DELETE FROM demo_kill", []string{claimKept, claimWindows}},
		{"a run begins inside the window", "UPDATE _segno_run SET started = CAST((julianday(" + window + ") - 2440587.5) * 86400000000 AS INTEGER) - 100000 WHERE run = (SELECT min(run) FROM segno_runs WHERE flow = 'probe' AND started > " + window + ")", []string{claimWindows}},
		{"the reset is forgotten", "DELETE FROM _segno_event WHERE kind = 'reset'", []string{claimTrip}},
		{"the flow did not stand still", "UPDATE _segno_event SET at = at + 3600000000 WHERE kind = 'reset'", []string{claimTrip}},
		{"a refund is lost", "DELETE FROM demo_posting WHERE what = 'refund' AND order_id = (SELECT min(order_id) FROM demo_posting WHERE what = 'refund')", []string{claimRollbacks, claimConserved}},
		{"a charge is made twice", "INSERT INTO demo_posting SELECT * FROM demo_posting WHERE what = 'charge' AND order_id = 1", []string{claimRollbacks, claimConserved}},
		{"money appears", "UPDATE demo_balance SET amount = amount + 1 WHERE account = 'shop'", []string{claimConserved}},
		{"a report is lost", "DELETE FROM demo_report WHERE run = (SELECT min(run) FROM demo_report)", []string{claimReports}},
		{"a report is written twice", "INSERT INTO demo_report SELECT * FROM demo_report WHERE run = (SELECT min(run) FROM demo_report)", []string{claimReports}},
		{"a slot is lost", "DELETE FROM _segno_ledger WHERE id = (SELECT id FROM _segno_ledger WHERE run IN (SELECT run FROM segno_runs WHERE flow = 'report') ORDER BY id LIMIT 1 OFFSET 2)", []string{claimReports}},
		{"an order was never run", "INSERT INTO demo_order VALUES (999, 'nobody', 1, 999)", []string{claimRollbacks, claimComplete}},
		{"an index is lost", mixUp, []string{claimIntegrity}},
	} {
		t.Run(c.name, func(t *testing.T) {
			damaged := filepath.Join(t.TempDir(), "copy.db")
			raw, err := os.ReadFile(db)
			must(t, err)
			must(t, os.WriteFile(damaged, raw, 0o600))
			spoil(t, damaged, c.sql)
			bad := broken(t, damaged, input, 1)
			for _, claim := range c.breaks {
				if !slices.Contains(bad, claim) {
					t.Errorf("got = %q broken, want %q, too", bad, claim)
				}
			}
		})
	}
}
