package segno

import (
	"context"
	"errors"
	"time"

	"github.com/segnodev/segno/store"
)

const (
	pruneEvery = time.Minute           // and first so long after Start
	prunePause = 10 * time.Millisecond // between two requests: others come first
	prunePage  = 1000                  // rows read at a time
	pruneHour  = time.Hour             // between looks at what grows old by the year
	pruneAnew  = day                   // what was kept is looked at again
)

// A walk is a position in a table, remembered so that what is kept is not read
// again each time.
type walk struct {
	from  int64     // everything up to here has been looked at
	look  time.Time // nothing behind it goes earlier
	began time.Time
	runs  int64 // of the flow, when all of them had been looked at
}

// begin reports whether it is time to look; once a day that is from the start.
func (w *walk) begin(now time.Time) bool {
	if age := now.Sub(w.began); age < 0 || age >= pruneAnew {
		*w = walk{began: now}
	}
	return !now.Before(w.look)
}

// An aging is a table of which rows go by their age alone.
type aging struct {
	walk
	age    time.Duration
	read   func(ctx context.Context, after int64, before time.Time, limit int) ([]store.Aged, error)
	remove func(tx *store.Tx, ids []int64) error
}

// pruner deletes what Options.Retention does not keep.
type pruner struct {
	*RunningScheduler
	rule   Retention
	flows  map[int64]*walk
	aged   []*aging
	thin   map[int64]int64 // by open run: the entry up to which its history is thin
	pruned bool            // something was deleted since the file was made smaller
}

// prune is the loop that deletes what is old.
func (r *RunningScheduler) prune() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // a request that waits for the disk must not hold up a Stop
		select {
		case <-r.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	p := newPruner(r)
	for pause(ctx, pruneEvery) {
		if err := p.pass(ctx, r.now()); err != nil {
			r.cleanupFailed("what is old could not be deleted, and is tried again", err)
		}
	}
}

func newPruner(r *RunningScheduler) *pruner {
	rule := r.opts.Retention.withDefaults()
	return &pruner{
		RunningScheduler: r, rule: rule, flows: map[int64]*walk{}, thin: map[int64]int64{}, pruned: true,
		aged: []*aging{
			{age: rule.Ledger, read: r.store.AgedSlots, remove: (*store.Tx).PruneSlots},
			{age: rule.Events, read: r.store.AgedEvents, remove: (*store.Tx).PruneEvents},
		},
	}
}

// pause waits, and reports whether the context is still good then.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pass deletes all that is old at now.
func (p *pruner) pass(ctx context.Context, now time.Time) error {
	errs := []error{p.pruneRuns(ctx, now)}
	for _, a := range p.aged {
		errs = append(errs, p.pruneAged(ctx, a, now))
	}
	return errors.Join(append(errs, p.thinLong(ctx), p.vacuum(ctx))...)
}

// commit makes one request, and leaves others room.
func (p *pruner) commit(ctx context.Context, fn func(tx *store.Tx) error) error {
	if err := p.update(ctx, fn); err != nil {
		return err
	}
	p.pruned = true
	return p.rest(ctx)
}

// rest leaves others room.
func (p *pruner) rest(ctx context.Context) error {
	if !pause(ctx, prunePause) {
		return ErrStopped
	}
	return nil
}

// pruneRuns deletes runs of every flow that has more than are kept in any case.
func (p *pruner) pruneRuns(ctx context.Context, now time.Time) error {
	keep := store.Keep{
		Runs: p.rule.Runs, Completed: p.rule.runsUntil(p.rule.Completed, now), Failed: p.rule.runsUntil(p.rule.Failed, now),
	}
	if keep.Completed.IsZero() && keep.Failed.IsZero() {
		return nil
	}
	for after := int64(0); ; {
		flows, err := p.store.Crowded(ctx, after, keep.Runs, prunePage)
		if err != nil || len(flows) == 0 {
			return err
		}
		for _, f := range flows {
			after = f.Flow
			if err := p.pruneFlow(ctx, f, keep, now); err != nil {
				return err
			}
		}
	}
}

// pruneFlow walks a flow's runs, oldest first, from where it was left, up to
// the first that is too young, or to the newest that are kept.
func (p *pruner) pruneFlow(ctx context.Context, f store.Crowded, keep store.Keep, now time.Time) error {
	w := p.flows[f.Flow]
	if w == nil {
		w = &walk{}
		p.flows[f.Flow] = w
	}
	if !w.begin(now) || w.runs == f.Runs {
		return nil
	}
	age := now.Sub(keep.Completed)
	if keep.Completed.Before(keep.Failed) {
		age = now.Sub(keep.Failed)
	}
	for {
		page, err := p.store.Surplus(ctx, f.Flow, w.from, keep, prunePage)
		if err != nil {
			return err
		}
		n := 0
		for n < len(page) && (page[n].Created.After(now) || now.Sub(page[n].Created) > age) {
			n++
		}
		if err := p.pruneSurplus(ctx, page[:n]); err != nil {
			return err
		}
		if n > 0 {
			w.from = page[n-1].Run
		}
		switch {
		case n < len(page):
			w.look = page[n].Created.Add(age)
			return nil
		case n < prunePage:
			w.runs = f.Runs
			return nil
		}
		if err := p.rest(ctx); err != nil {
			return err
		}
	}
}

// pruneSurplus deletes those of the runs that are to go, as many at a time as
// fit in one request.
func (p *pruner) pruneSurplus(ctx context.Context, page []store.Surplus) error {
	var chunk []store.Doomed
	rows := 0
	for _, s := range page {
		if !s.Goes {
			continue
		}
		d, n, err := p.shrink(ctx, s)
		if err != nil {
			return err
		}
		if len(chunk) > 0 && rows+n > store.PruneRows {
			if err := p.commit(ctx, func(tx *store.Tx) error { return tx.Prune(chunk) }); err != nil {
				return err
			}
			chunk, rows = nil, 0
		}
		if d.Run != 0 {
			chunk, rows = append(chunk, d), rows+n
		}
	}
	if len(chunk) == 0 {
		return nil
	}
	return p.commit(ctx, func(tx *store.Tx) error { return tx.Prune(chunk) })
}

// shrink reads what there is of a run that is to go, makes it fit in one
// request if it does not, and returns how many rows it has then.
func (p *pruner) shrink(ctx context.Context, s store.Surplus) (d store.Doomed, rows int, err error) {
	d = store.Doomed{Run: s.Run, Seq: s.Seq}
	if d.Entries, err = p.store.Links(ctx, s.Last, 0); err != nil {
		return d, 0, err
	}
	if s.Extra+len(d.Entries) >= store.PruneRows {
		for n := int64(store.PruneRows); n == store.PruneRows; s.Extra = 0 {
			err := p.commit(ctx, func(tx *store.Tx) (err error) { n, err = tx.Strip(d); return err })
			if err != nil {
				return d, 0, err
			}
		}
	}
	for len(d.Entries) >= store.PruneRows {
		var left store.Doomed
		err := p.commit(ctx, func(tx *store.Tx) (err error) { left, err = tx.Behead(d); return err })
		if d = left; err != nil || d.Run == 0 {
			return d, 0, err
		}
	}
	return d, s.Extra + d.Rows(), nil
}

// pruneAged deletes what is old in a table that goes by age alone.
func (p *pruner) pruneAged(ctx context.Context, a *aging, now time.Time) error {
	if a.age < 0 || !a.begin(now) {
		return nil
	}
	for {
		page, err := a.read(ctx, a.from, now.Add(-a.age), store.PruneRows)
		if err != nil {
			return err
		}
		ids, old := a.pick(page)
		if len(ids) > 0 {
			if err := p.commit(ctx, func(tx *store.Tx) error { return a.remove(tx, ids) }); err != nil {
				return err
			}
		}
		if !old || len(page) < store.PruneRows {
			a.look = now.Add(pruneHour)
			return nil
		}
	}
}

// pick returns the rows that go. The position moves up to the last old one: a
// young one before it may be a stretch of slots that went on for long.
func (a *aging) pick(page []store.Aged) (ids []int64, old bool) {
	for _, row := range page {
		if row.Goes {
			ids = append(ids, row.ID)
		}
		if row.Old {
			old, a.from = true, row.ID
		}
	}
	return ids, old
}

// thinLong takes visits long gone out of the histories of runs that go on and on.
func (p *pruner) thinLong(ctx context.Context) error {
	if len(p.thin) > prunePage {
		clear(p.thin) // most of them have ended; the others are read anew
	}
	for _, run := range p.store.Long() {
		h, err := p.store.Run(ctx, run)
		if errors.Is(err, ErrNotFound) || err == nil && h.Status.Ended() {
			delete(p.thin, run)
			continue
		}
		if err != nil {
			return err
		}
		links, err := p.store.Links(ctx, h.Last, p.thin[run])
		if err != nil {
			return err
		}
		cuts, kept := store.Thin(links, p.thin[run], int64(h.Visit-p.rule.MaxVisits))
		for _, c := range cuts {
			if err := p.commit(ctx, func(tx *store.Tx) error { return tx.Thin(run, c) }); err != nil {
				return err
			}
		}
		p.thin[run] = kept
	}
	return nil
}
