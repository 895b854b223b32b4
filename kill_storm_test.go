//go:build unix

package segno_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestKillStorm kills a process with hundreds of mixed runs again and again, at
// random, in the middle of a start as well, and checks the file from its views
// alone: as somebody would who knows nothing of how segno works.
func TestKillStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("in CI's long suites")
	}
	kills, first, more := 12, 100, 20
	if killLong {
		kills, first, more = 1000, 300, 10
	}
	r := &stormRig{killRig: newKillRig(t, killPlan{Scenario: "storm", Runs: first, Suspect: time.Millisecond}), keys: map[int64]string{}}
	for n := range kills {
		l := r.start()
		if n > 0 && r.rand.IntN(4) == 0 {
			l.nip(60 * time.Millisecond)
		} else {
			l.storm(1 + r.rand.IntN(r.plan.Runs))
		}
		r.plan.Runs = more
		if n%50 == 11 {
			r.check(false)
		}
	}
	r.plan.Mode = "finish"
	l := r.start()
	for ok := true; ok; _, ok = l.next() {
	}
	if l.wait() {
		t.Fatal("the last life was killed")
	}
	r.check(true)
	t.Logf("%d kills, %d runs", r.deaths, len(r.status))
}

// storm kills the life a little after its nth trigger was answered.
func (l *killLife) storm(n int) {
	l.rig.t.Helper()
	l.reach("ack", n)
	time.Sleep(time.Duration(l.rig.rand.Int64N(int64(30 * time.Millisecond))))
	_ = l.cmd.Process.Kill()
	for ok := true; ok; _, ok = l.next() {
	}
	if !l.wait() {
		l.rig.t.Fatalf("life %d had ended before it was killed", l.rig.plan.Life)
	}
	l.rig.deaths++
}

// A stormRig is the parent of a storm, and the checker.
type stormRig struct {
	*killRig
	seen   int              // events looked at
	keys   map[int64]string // of every answered trigger
	status map[int64]string // of every run in the file
	way    map[int64]string // of the runs of "storm"
	db     *sql.DB
}

// check checks what must hold after any kill; and, of a file whose runs have all
// ended, how.
func (r *stormRig) check(over bool) {
	r.t.Helper()
	for _, e := range r.events[r.seen:] {
		if e.What == "ack" {
			r.keys[int64(e.Run)] = e.Text
		}
	}
	r.seen = len(r.events)
	r.db = killOpenFile(r.t, r.plan.Path)
	defer r.db.Close()
	r.checkRuns()
	r.checkHistories(over)
	r.checkSlots()
	if over {
		r.checkEnds()
		r.checkDeeds()
		r.none("signals not consumed", "SELECT id FROM segno_signals WHERE status <> 'consumed'")
		r.none("flows that miscount", "SELECT flow FROM segno_flows f WHERE runs <> (SELECT count(*) FROM segno_runs r WHERE r.flow = f.flow AND r.parent IS NULL) AND flow <> 'child'")
	}
}

// none fails if the query finds anything.
func (r *stormRig) none(what, query string) {
	r.t.Helper()
	var found []string
	killQuery(r.t, r.db, query, func(scan func(...any)) {
		var s string
		scan(&s)
		found = append(found, s)
	})
	if len(found) > 0 {
		r.t.Errorf("after %d kills, %s: got = %d (%s), want none", r.deaths, what, len(found), strings.Join(found[:min(5, len(found))], ", "))
	}
}

// checkRuns checks that whatever was acknowledged is there, once.
func (r *stormRig) checkRuns() {
	r.t.Helper()
	r.status, r.way = map[int64]string{}, map[int64]string{}
	keys := map[int64]string{}
	killQuery(r.t, r.db, "SELECT run, flow, status, coalesce(key, '') FROM segno_runs", func(scan func(...any)) {
		var run int64
		var flow, status, key string
		scan(&run, &flow, &status, &key)
		r.status[run], keys[run] = status, key
		if flow == "storm" {
			r.way[run], _, _ = strings.Cut(key, "-")
		}
	})
	for run, key := range r.keys {
		if keys[run] != key {
			r.t.Errorf("after %d kills, run %d: got key = %q, want %q: its trigger was answered", r.deaths, run, keys[run], key)
		}
	}
	r.none("keys with two runs", "SELECT key FROM segno_runs WHERE key IS NOT NULL GROUP BY flow, key HAVING count(*) > 1")
	r.none("slots with two runs", "SELECT run FROM segno_runs WHERE slot IS NOT NULL GROUP BY flow, slot HAVING count(*) > 1")
	r.none("runs of stuck", "SELECT run FROM segno_runs WHERE status = 'stuck'")
}

// checkHistories checks that each history begins, goes on and ends, and that
// every entry of the log is in one.
func (r *stormRig) checkHistories(over bool) {
	r.t.Helper()
	logged := map[int64]int{}
	killQuery(r.t, r.db, "SELECT run, count(*) FROM segno_log GROUP BY run", func(scan func(...any)) {
		var run int64
		var n int
		scan(&run, &n)
		logged[run] = n
	})
	for run, status := range r.status {
		if !over && run%17 != 0 { // a part of them, on the way
			continue
		}
		var visit, id int64
		var kinds []string
		killQuery(r.t, r.db, "SELECT id, visit, kind FROM segno_history WHERE run = ?", func(scan func(...any)) {
			var now int64
			wasID, kind := id, ""
			scan(&id, &now, &kind)
			if kind == "enter" || kind == "end" && now > visit { // completed: in the final state
				visit++
			}
			if now > visit || kind == "enter" && now != visit || id <= wasID { // an undo is of a visit before
				r.t.Errorf("run %d: got %s of visit %d (entry %d) behind entry %d, want visit %d", run, kind, now, id, wasID, visit)
			}
			kinds = append(kinds, kind)
		}, run)
		if len(kinds) != logged[run] {
			r.t.Errorf("run %d: got = %d entries in its history, want the %d of the log", run, len(kinds), logged[run])
		}
		ended := status == "completed" || status == "failed" || status == "cancelled" || status == "undo_failed"
		last := kinds[len(kinds)-1]
		if kinds[0] != "enter" || ended != (last == "end") || strings.Count(strings.Join(kinds, " "), "end") > 1 {
			r.t.Errorf("run %d, %s: got history = %v, want it from enter to end", run, status, kinds)
		}
	}
}

// checkSlots checks that the stretches of each flow's ledger follow one another,
// without a gap where the period is known.
func (r *stormRig) checkSlots() {
	r.t.Helper()
	periods := map[string]time.Duration{"tick": 20 * time.Millisecond, "all": 50 * time.Millisecond, "second": time.Second}
	ends := map[string]time.Time{}
	killQuery(r.t, r.db, "SELECT flow, first, last, count, outcome, coalesce(run, 0) FROM segno_slots ORDER BY flow, first", func(scan func(...any)) {
		var flow, outcome string
		var from, to string
		var count, run int64
		scan(&flow, &from, &to, &count, &outcome, &run)
		first, last := stormTime(r.t, from), stormTime(r.t, to)
		end, period := ends[flow], periods[flow]
		switch {
		case !end.IsZero() && period > 0 && !first.Equal(end.Add(period)), !first.After(end):
			r.t.Errorf("slots of %s: got %v behind %v, want the next", flow, first, end)
		case period > 0 && last.Sub(first) != time.Duration(count-1)*period:
			r.t.Errorf("slots of %s: got = %d from %v to %v", flow, count, first, last)
		case outcome != "skipped" && r.status[run] == "":
			r.t.Errorf("slots of %s: %v %s by run %d: got = no such run, want one", flow, first, outcome, run)
		}
		ends[flow] = last
	})
}

func stormTime(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// checkEnds checks that each run has ended as it must.
func (r *stormRig) checkEnds() {
	r.t.Helper()
	want := map[string]string{}
	for _, w := range stormWays {
		want[w.name] = w.status
	}
	for run, status := range r.status {
		end := want[r.way[run]]
		if end == "" {
			end = "completed"
		}
		if status != end {
			r.t.Errorf("run %d (%s): got = %s, want %s", run, r.way[run], status, end)
		}
	}
}

// checkDeeds checks that every unit that joined a row has done so once.
func (r *stormRig) checkDeeds() {
	r.t.Helper()
	r.none("deeds done twice", "SELECT what FROM deeds GROUP BY run, visit, what HAVING count(*) > 1")
	deeds, got := map[string]int{}, map[int64]int{}
	for _, w := range stormWays {
		deeds[w.name] = w.deeds
	}
	killQuery(r.t, r.db, "SELECT run, count(*) FROM deeds GROUP BY run", func(scan func(...any)) {
		var run int64
		var n int
		scan(&run, &n)
		got[run] = n
	})
	for run := range r.status {
		want := 1 // of a slot, or a child
		if way := r.way[run]; way != "" {
			want = deeds[way]
		}
		if got[run] != want {
			r.t.Errorf("run %d (%s): got = %s, want %d", run, r.way[run], fmt.Sprintf("%d deeds", got[run]), want)
		}
	}
}
