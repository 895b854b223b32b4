package segno

import (
	"errors"
	"fmt"
	"time"
)

// Retention says what is deleted from the file as it grows old. The zero value
// deletes with the defaults given here; -1 in a field means for ever. Deleting
// begins a minute after Start and goes on in small commits that hold up nobody.
//
// A run goes whole: its data, history, memos and signals, and its Key may then
// be used again. Ids never are. Whatever the fields say, an open run stays, and
// so do the last run of a flow, a run called by one that is open, and one that is
// undo_failed until UndoRun has undone it or AckRun has accepted it.
type Retention struct {
	// Runs is how many runs of each flow are kept in any case, the newest; 0
	// means 1,000.
	Runs int
	// MinAge is how long a run is kept in any case after its end; 0 means 24
	// hours.
	MinAge time.Duration
	// Completed is how long after their end runs are kept that completed or were
	// cancelled; 0 means 30 days.
	Completed time.Duration
	// Failed is that for runs that failed, and for undo_failed ones that AckRun
	// has accepted; 0 means 90 days.
	Failed time.Duration
	// Ledger is how long it is on record what became of a slot; 0 means 365 days.
	// A slot is on record as long as its run is kept, in any case.
	Ledger time.Duration
	// Events is how long events of the scheduler are kept; 0 means 365 days.
	Events time.Duration
	// MaxVisits is how many visits of an open run are kept in its history, the
	// newest; 0 means 1,000. Older ones that its rollback needs are kept, too. Up
	// to a tenth more may be there at a time.
	MaxVisits int
}

const day = 24 * time.Hour

// withDefaults fills in the zero fields.
func (t Retention) withDefaults() Retention {
	return Retention{
		Runs: orDefault(t.Runs, 1000), MaxVisits: orDefault(t.MaxVisits, 1000), MinAge: orDefault(t.MinAge, day),
		Completed: orDefault(t.Completed, 30*day), Failed: orDefault(t.Failed, 90*day),
		Ledger: orDefault(t.Ledger, 365*day), Events: orDefault(t.Events, 365*day),
	}
}

// validate finds every fault of the fields.
func (t Retention) validate() error {
	var errs []error
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"Runs", int64(t.Runs)}, {"MinAge", int64(t.MinAge)}, {"Completed", int64(t.Completed)}, {"Failed", int64(t.Failed)},
		{"Ledger", int64(t.Ledger)}, {"Events", int64(t.Events)}, {"MaxVisits", int64(t.MaxVisits)},
	} {
		if f.n < -1 {
			errs = append(errs, fmt.Errorf("%w: Options.Retention.%s is negative; -1 means for ever", ErrConfig, f.name))
		}
	}
	return errors.Join(errs...)
}

// runsUntil returns which runs that ended before are old enough to go; zero: none is.
func (t Retention) runsUntil(age time.Duration, now time.Time) time.Time {
	if t.Runs < 0 || t.MinAge < 0 || age < 0 {
		return time.Time{}
	}
	return now.Add(-max(age, t.MinAge))
}

// visits returns how many visits of an open run are kept, 0 for all.
func (t Retention) visits() int { return max(t.MaxVisits, 0) }
