//go:build unix

package segno_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// killLedger keeps tables of its own in the file. An order and its run are
// inserted by one commit; each of the run's steps books an effect with its
// transition; the last one starts a follow-up.
func killLedger(c *killChild) {
	opts := c.options()
	opts.Schema = func(tx segno.Tx) error {
		for _, ddl := range []string{
			"CREATE TABLE IF NOT EXISTS orders (n INTEGER PRIMARY KEY, run INTEGER NOT NULL)",
			"CREATE TABLE IF NOT EXISTS effects (run INTEGER NOT NULL, visit INTEGER NOT NULL)",
			"CREATE TABLE IF NOT EXISTS total (n INTEGER NOT NULL)",
			"INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total)",
		} {
			if _, err := tx.Exec(ddl); err != nil {
				return err
			}
		}
		return nil
	}
	s := segno.New(c.Path, opts)
	c.check(s.Add(segno.Flow{ID: "orders", Overlap: segno.Allow(0), Workflow: segno.Workflow[killState, killData]{
		Initial: "a", Steps: killSteps{
			"a": c.booked("b"), "b": c.booked("c"), "c": c.booked("done"), "done": {Final: true},
		},
	}}))
	c.check(s.Add(segno.Flow{ID: "follow", Overlap: segno.Allow(0), Workflow: segno.Workflow[killState, killData]{
		Initial: "a", Steps: killSteps{"a": c.step("done", 0), "done": {Final: true}},
	}}))
	r := c.start(s)
	c.order(r)
	c.finish(r)
}

// booked is a step that books an effect with its transition.
func (c *killChild) booked(next killState) killStep {
	step := c.step(next, c.Nap)
	do := step.Do
	step.Do = func(ctx context.Context, d *killData) (killState, error) {
		in := segno.InfoFrom(ctx)
		err := segno.OnCommit(ctx, func(tx segno.Tx) error {
			_, err := tx.Exec("INSERT INTO effects (run, visit) VALUES (?, ?)", in.Run, in.Visit)
			if err == nil {
				_, err = tx.Exec("UPDATE total SET n = n + 1")
			}
			if err == nil && next == "done" {
				_, err = tx.Trigger("follow", segno.Trigger{})
			}
			return err
		})
		if err != nil {
			return "", err
		}
		return do(ctx, d)
	}
	return step
}

// order writes the orders that are not there yet, from four goroutines.
func (c *killChild) order(r *segno.RunningScheduler) {
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for n := worker; n < c.Runs; n += 4 {
				var id segno.RunID
				c.check(r.Write(context.Background(), func(tx segno.Tx) error {
					var there int
					err := tx.QueryRow("SELECT count(*) FROM orders WHERE n = ?", n).Scan(&there)
					if err != nil || there > 0 {
						return err
					}
					if id, err = tx.Trigger("orders", segno.Trigger{}); err == nil {
						_, err = tx.Exec("INSERT INTO orders (n, run) VALUES (?, ?)", n, id)
					}
					return err
				}))
				if id != 0 {
					c.say(killEvent{What: "ack", Run: id})
				}
			}
		})
	}
	wg.Wait()
}

// TestKillOnCommit kills the program at random while it writes to tables of
// its own: what it writes there happens exactly once.
func TestKillOnCommit(t *testing.T) {
	t.Parallel()
	rounds := 2
	if killLong {
		rounds = 20
	}
	for range rounds {
		rig := newKillRig(t, killPlan{Scenario: "ledger", Runs: 80, Nap: 2 * time.Millisecond})
		for range 3 {
			rig.start().strike("do", 1+rig.rand.IntN(60))
			rig.checkBooks()
		}
		rig.start().ends()
		rig.checkBooks()
		for query, want := range map[string]int{
			"SELECT count(*) FROM orders":                                 rig.plan.Runs,
			"SELECT count(*) FROM effects":                                3 * rig.plan.Runs,
			"SELECT n FROM total":                                         3 * rig.plan.Runs,
			"SELECT count(*) FROM segno_runs WHERE flow = 'follow'":       rig.plan.Runs,
			"SELECT count(*) FROM segno_runs WHERE status <> 'completed'": 0,
		} {
			if got := killValue[int](t, rig.plan.Path, query); got != want {
				t.Errorf("%s: got %d, want %d", query, got, want)
			}
		}
	}
}

// checkBooks checks that the program's own tables agree with the runs: every
// transition that is in the file has its effect there, and no other has.
func (r *killRig) checkBooks() {
	r.t.Helper()
	db := killOpenFile(r.t, r.plan.Path)
	defer db.Close()
	booked, sum, follow := map[segno.RunID]int{}, 0, 0
	killQuery(r.t, db, "SELECT run, visit FROM effects ORDER BY run, visit", func(scan func(...any)) {
		var run segno.RunID
		var visit int
		scan(&run, &visit)
		if booked[run]++; visit != booked[run] {
			r.t.Errorf("run %d: got an effect of visit %d, want %d next, each once", run, visit, booked[run])
		}
	})
	ordered := map[segno.RunID]bool{}
	killQuery(r.t, db, "SELECT run FROM orders", func(scan func(...any)) {
		var run segno.RunID
		scan(&run)
		ordered[run] = true
	})
	for id, h := range r.left {
		if h.flow == "follow" {
			follow++
			continue
		}
		if !ordered[id] {
			r.t.Errorf("run %d has no order", id)
		}
		delete(ordered, id)
		if got, want := booked[id], h.visit-1; got != want {
			r.t.Errorf("run %d (%s): got %d effects in the file, want %d", id, h.status, got, want)
		}
		sum += booked[id]
		if h.ended {
			follow--
		}
	}
	if len(ordered) > 0 {
		r.t.Errorf("%d orders have no run", len(ordered))
	}
	if follow != 0 {
		r.t.Errorf("got %d follow-ups more than ended runs, want as many", follow)
	}
	if got := killValue[int](r.t, r.plan.Path, "SELECT n FROM total"); got != sum {
		r.t.Errorf("got a total of %d, want %d", got, sum)
	}
}
