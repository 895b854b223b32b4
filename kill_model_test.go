//go:build unix

package segno_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno/segnotest"
)

// A killModelRig is a rig whose lives work on the one run of a model.
type killModelRig struct {
	*killRig
	model  killModel
	begun  map[string]int  // how often each unit began
	booked map[string]bool // units with a row, at the last death
	naps   map[int]int64   // until when a visit waits, once it is known
	until  int64           // an open breaker's end, at the last death
	used   int             // of the quota, at the last death
	seen   int             // events judged
}

func newKillModelRig(t *testing.T, name string) *killModelRig {
	t.Helper()
	r := &killModelRig{
		killRig: newKillRig(t, killPlan{Scenario: "model", Model: name, Suspect: 10 * time.Millisecond}), model: killModels[name],
		begun: map[string]int{}, booked: map[string]bool{}, naps: map[int]int64{},
	}
	if r.model.warm != nil {
		r.used = killUsed
		r.live("", 0)
	}
	return r
}

// live is one life, killed before or after its commit at (0: not at all). It
// reports whether it was killed, and what it left is judged.
func (r *killModelRig) live(mode string, at int) bool {
	r.t.Helper()
	r.plan.Mode, r.plan.At, r.plan.Sent = mode, at, r.count("sent", 0)
	killed := r.start().died()
	what := fmt.Sprintf("life %d, killed %s commit %d", r.plan.Life, mode, at)
	if !killed {
		what = fmt.Sprintf("life %d", r.plan.Life)
	}
	life := r.events[r.seen:]
	r.seen = len(r.events)
	r.judgeUnits(what, life)
	if len(r.left) == 0 && killed {
		return killed // there may be no tables yet
	}
	segnotest.Check(r.t, r.plan.Path)
	r.book(what)
	r.judgeNaps(what)
	r.judgeGuards(what, life)
	return killed
}

// judgeUnits judges what a life has begun by what the one before had finished.
func (r *killModelRig) judgeUnits(what string, life []killEvent) {
	r.t.Helper()
	now := map[string]bool{}
	for _, e := range life {
		if e.What != "unit" {
			continue
		}
		if r.booked[e.Text] {
			r.t.Errorf("%s: %q began again; it was committed", what, e.Text)
		}
		if now[e.Text] {
			r.t.Errorf("%s: %q began twice in it", what, e.Text)
		}
		now[e.Text] = true
		if r.begun[e.Text]++; r.begun[e.Text] > r.deaths+1 {
			r.t.Errorf("%s: %q began %d times with %d deaths", what, e.Text, r.begun[e.Text], r.deaths)
		}
		for visit, until := range r.naps {
			if e.Visit >= visit && e.At.UnixMicro() < until {
				r.t.Errorf("%s: %q began at %d, want nothing before %d", what, e.Text, e.At.UnixMicro(), until)
			}
		}
	}
}

// book reads the rows that the units have left: each one, of a unit that began.
func (r *killModelRig) book(what string) {
	r.t.Helper()
	db := killOpenFile(r.t, r.plan.Path)
	defer db.Close()
	r.booked = map[string]bool{}
	killQuery(r.t, db, "SELECT unit FROM units", func(scan func(...any)) {
		var unit string
		scan(&unit)
		if r.booked[unit] || r.begun[unit] == 0 {
			r.t.Errorf("%s: got a row for %q, which began %d times, booked already: %v", what, unit, r.begun[unit], r.booked[unit])
		}
		r.booked[unit] = true
	})
	var open []string
	for unit := range r.begun {
		if !r.booked[unit] {
			open = append(open, unit)
		}
	}
	if len(open) > r.model.inFlight {
		r.t.Errorf("%s: got %d units in flight (%q), want %d at most", what, len(open), open, r.model.inFlight)
	}
}

// judgeNaps checks that a wait, once begun, ends when it was to end.
func (r *killModelRig) judgeNaps(what string) {
	r.t.Helper()
	db := killOpenFile(r.t, r.plan.Path)
	defer db.Close()
	const waits = `SELECT state, visit, coalesce(due, wake) FROM _segno_run WHERE due IS NOT NULL OR status = 'waiting' AND wake IS NOT NULL`
	killQuery(r.t, db, waits, func(scan func(...any)) {
		var state killState
		var visit int
		var due int64
		if scan(&state, &visit, &due); !slices.Contains(r.model.naps, state) {
			return
		}
		if was, ok := r.naps[visit]; ok && was != due {
			r.t.Errorf("%s: visit %d waits until %d, want %d as before", what, visit, due, was)
		}
		r.naps[visit] = due
	})
}

// judgeGuards judges the calls of a life by what the file said of the breaker
// and the window before.
func (r *killModelRig) judgeGuards(what string, life []killEvent) {
	r.t.Helper()
	calls := 0
	for _, e := range life {
		if e.What != "unit" {
			continue
		}
		if calls++; e.At.UnixMicro() < r.until {
			r.t.Errorf("%s: %q began at %d, the breaker is open until %d", what, e.Text, e.At.UnixMicro(), r.until)
		}
	}
	const one = "SELECT coalesce(max(%s), 0) FROM %s"
	until := killValue[int64](r.t, r.plan.Path, fmt.Sprintf(one, "until", "_segno_breaker WHERE state = 'open'"))
	if calls == 0 && until != 0 && until != r.until && r.until != 0 { // half-open, it has none
		r.t.Errorf("%s: the breaker is open until %d, want %d as before", what, until, r.until)
	}
	used := killValue[int](r.t, r.plan.Path, fmt.Sprintf(one, "used", "_segno_limiter"))
	if used < r.used || used > r.used+calls {
		r.t.Errorf("%s: got %d used of the quota, want %d to %d", what, used, r.used, r.used+calls)
	}
	r.until, r.used = until, used
}

// end is what must be the same however often the program was killed.
func (r *killModelRig) end() string {
	r.t.Helper()
	var lines []string
	for _, h := range r.left {
		lines = append(lines, fmt.Sprintf("%s %s in visit %d: %s%s", h.flow, h.status, h.visit, h.data, h.err))
	}
	slices.Sort(lines)
	return strings.Join(append(lines, slices.Sorted(maps.Keys(r.booked))...), "\n")
}

// judgeEnd judges the whole, when the run has ended.
func (r *killModelRig) judgeEnd(want string) {
	r.t.Helper()
	if r.deaths > 0 && len(r.model.naps) > 0 {
		r.t.Logf("waits seen by deaths: %v", r.naps)
	}
	if got := r.end(); got != want {
		r.t.Errorf("got the end\n%s\nwant\n%s", got, want)
	}
	for unit := range r.begun {
		if !r.booked[unit] {
			r.t.Errorf("%q began, and has no row", unit)
		}
	}
	db := killOpenFile(r.t, r.plan.Path)
	defer db.Close()
	killQuery(r.t, db, `SELECT parent_visit, count(*) FROM _segno_run WHERE parent IS NOT NULL GROUP BY 1 HAVING count(*) > 1`,
		func(scan func(...any)) {
			var visit, n int
			scan(&visit, &n)
			r.t.Errorf("visit %d has %d children, want one", visit, n)
		})
	killQuery(r.t, db, `SELECT message, count(*), count(taken) FROM _segno_signal GROUP BY 1 HAVING count(*) > 1 OR count(taken) = 0`,
		func(scan func(...any)) {
			var message string
			var n, taken int
			scan(&message, &n, &taken)
			r.t.Errorf("signal %s is there %d times, taken %d times, want one, taken", message, n, taken)
		})
}

// TestKillModels kills the program at commits of a run of every processing
// model, several times in a row, until the run has ended: it ends as if nothing
// had happened, each unit's row is there once, and only units in flight began again.
func TestKillModels(t *testing.T) {
	t.Parallel()
	for name := range killModels {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clean := newKillModelRig(t, name)
			clean.live("", 0)
			commits := clean.events[len(clean.events)-1].Visit
			want := clean.end()
			clean.judgeEnd(want)
			t.Logf("%d commits, %d units; they end as\n%s", commits, len(clean.begun), want)
			if commits < 8 || !strings.HasPrefix(want, "child completed") && !strings.HasPrefix(want, "flow completed") {
				t.Fatalf("got %d commits, want more to kill at, and completed runs", commits)
			}
			for _, kills := range killModelPlans(clean, commits) {
				r := newKillModelRig(t, name)
				for _, k := range kills {
					if !r.live(k.mode, k.at) {
						t.Logf("%s commit %d: there was none", k.mode, k.at)
						break
					}
				}
				if r.deaths == len(kills) && r.live("", 0) {
					t.Fatal("killed, want the last life to end by itself")
				}
				r.judgeEnd(want)
			}
		})
	}
}

type killModelAt struct {
	mode string
	at   int
}

// killModelPlans are the kills of each file: a sample of the commits, the best
// one first if the clean life has named it, and every one of them if SEGNO_LONG
// is set.
func killModelPlans(r *killModelRig, commits int) (plans [][]killModelAt) {
	second := func(mode string) killModelAt { return killModelAt{mode, 1 + r.rand.IntN(max(commits/2, 8))} }
	row := []killModelAt{{"before", 2 + r.rand.IntN(commits/3)}, second("after"), second("before"), second("after")}
	for _, e := range r.events {
		if e.What == "aim" {
			row[0] = killModelAt{killAim, 0}
		}
	}
	if plans = append(plans, row); !killLong {
		return plans
	}
	for at := 1; at <= commits; at++ {
		plans = append(plans, []killModelAt{{"before", at}, second("after")}, []killModelAt{{"after", at}, second("before")})
	}
	return plans
}
