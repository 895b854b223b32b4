package segnotest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A fact is one line of an outcome: what it is about, and what is so.
type fact struct{ about, what string }

// facts lists an outcome.
func (o *Outcome) facts(times bool) (facts []fact) {
	for i := range o.Runs {
		facts = append(facts, o.Runs[i].facts(times)...)
	}
	for i := range o.Flows {
		facts = append(facts, o.Flows[i].facts(times)...)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Tables)) {
		facts = append(facts, fact{"table " + name, strings.Join(o.Tables[name], "\n")})
	}
	return facts
}

func (r *EndedRun) facts(times bool) []fact {
	name := r.name
	facts := []fact{
		{name, fmt.Sprintf("%s in %s, visit %d, version %d, missed %d", r.Status, r.State, r.Visit, r.Version, r.Missed)},
		{name + ", error", strings.TrimSpace(r.Cause + " " + r.Error)},
		{name + ", data", r.Data},
		{name + ", history", strings.Join(r.History, "\n")},
	}
	if times {
		facts = append(facts, fact{name + ", times", fmt.Sprintf("created %s, started %s, due %s, ended %s",
			offset(r.Created), offset(r.Started), offset(r.Due), offset(r.Ended))})
	}
	return facts
}

func (f *Flow) facts(times bool) []fact {
	name := "flow " + f.ID
	facts := []fact{
		{name, fmt.Sprintf("%s, %q, %d runs, streak %d, %d open, %d stuck, orphaned %v %s", f.Outcome, f.Schedule, f.Runs, f.Streak, f.Open, f.Stuck, f.Orphaned, f.Paused)},
		{name + ", error", f.Error},
		{name + ", slots", strings.Join(f.Slots, "\n")},
	}
	if times {
		facts = append(facts, fact{name + ", times", fmt.Sprintf("last run %s, next %s, eligible %s", offset(f.LastRun), offset(f.Next), offset(f.Eligible))})
	}
	return facts
}

// differs says in what two outcomes differ.
func differs(got, want []fact) error {
	wanted, had := map[string]string{}, map[string]bool{}
	for _, f := range want {
		wanted[f.about] = f.what
	}
	var errs []error
	for _, f := range got {
		had[f.about] = true
		if what, ok := wanted[f.about]; !ok {
			errs = append(errs, fmt.Errorf("%s: got = %s, want none", f.about, f.what))
		} else if what != f.what {
			errs = append(errs, fmt.Errorf("%s:\n got = %s\nwant = %s", f.about, f.what, what))
		}
	}
	for _, f := range want {
		if !had[f.about] {
			errs = append(errs, fmt.Errorf("%s: got none, want = %s", f.about, f.what))
		}
	}
	return errors.Join(errs...)
}

// overdone says which effects happened too seldom or too often: at least as
// often as without the kills, and at most once more for each.
func overdone(got, want *Outcome, loose map[string]bool) error {
	var errs []error
	names := maps.Clone(want.Effects)
	maps.Copy(names, got.Effects)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n, low := got.Effects[name], want.Effects[name]
		high := low + got.Crashes
		if n < low || n > high && !loose[name] || low == 0 {
			errs = append(errs, fmt.Errorf("effect %q: got = %d times, want = %d to %d", name, n, low, high))
		}
	}
	return errors.Join(errs...)
}
