package segno

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

const (
	maxSleep  = 10 * time.Second // so that a suspend or a clock step is noticed
	lookEvery = 2 * time.Second  // at the lock, at most
	firstPage = 32               // runs per claiming commit, the first: soon
	claimPage = 500              // and the others: many
	sweepPage = 5000             // memos looked at together
	troubled  = time.Second      // pause after a read that failed
)

// dispatch is the one loop that starts what is due: it asks the indexes, acts,
// and sleeps until the next due moment.
func (r *RunningScheduler) dispatch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for last := (time.Time{}); ; {
		now := r.now()
		if !r.sane(ctx, now) {
			if !r.alarm.sleep(now.Add(insaneFor), now, insaneFor, r.stopping) {
				return
			}
			continue
		}
		r.lookAtClock(ctx, now)
		r.payRuns(ctx)
		next, err := r.pass(ctx, now)
		if err != nil && r.store.Err() == nil && !r.isStopping() {
			r.log.Error("segno: dispatching", "error", err)
			next = r.now().Add(troubled)
		}
		if last.IsZero() {
			r.loops.Go(func() { r.sweepMemos(ctx) }) // what the last owner has left
		}
		if now.Before(last) || last.IsZero() { // the clock was set back, or may have been before the start
			r.loops.Go(func() { r.shortenWaits(ctx) })
		}
		last = now
		if !r.alarm.sleep(next, r.now(), maxSleep, r.stopping) {
			return
		}
	}
}

// pass starts everything that is due at now and returns when to look again.
func (r *RunningScheduler) pass(ctx context.Context, now time.Time) (time.Time, error) {
	if now.After(r.nextLook) || r.nextLook.Sub(now) > lookEvery {
		r.nextLook = now.Add(lookEvery)
		if err := r.store.Check(ctx); err != nil {
			return now, err
		}
	}
	if err := r.dispatchSlots(ctx, now); err != nil {
		return now, err
	}
	if err := r.dispatchRuns(ctx, now); err != nil {
		return now, err
	}
	if err := r.dispatchSuspect(ctx, now); err != nil {
		return now, err
	}
	again, err := r.dispatchBackfills(ctx, now)
	if err != nil {
		return now, err
	}
	next, err := r.store.NextTime(ctx, now)
	look := r.nextLook.Add(maxSleep - lookEvery) // however often something else wakes it in between
	for _, t := range []time.Time{again, r.suspect.window(now), look} {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next, err
}

// dispatchSlots decides every slot that has come.
func (r *RunningScheduler) dispatchSlots(ctx context.Context, now time.Time) error {
	for !r.isStopping() {
		rows, err := r.store.DueFlows(ctx, now, claimPage)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := r.decideAll(ctx, rows, now); err != nil {
			return err
		}
		if len(rows) < claimPage {
			return nil
		}
	}
	return nil
}

// decideAll decides the slots of several flows in one request.
func (r *RunningScheduler) decideAll(ctx context.Context, rows []store.Flow, now time.Time) error {
	verdicts := make([]verdict, len(rows))
	for i := range rows {
		row := &rows[i]
		f := r.flows[row.ID]
		if f == nil {
			continue
		}
		var skips []store.Skip
		if row.Skips > 0 {
			var err error
			if skips, err = r.store.Skips(ctx, row.ID); err != nil {
				return err
			}
		}
		verdicts[i] = f.verdict(row, skips, now) // outside of the transaction: it may take a while
	}
	return r.update(ctx, func(tx *store.Tx) error {
		for i := range rows {
			v, row := &verdicts[i], tx.Flow(rows[i].ID)
			if v.f == nil {
				row.Next = time.Time{}
				continue
			}
			if err := r.apply(tx, v, row, now); err != nil {
				return err
			}
		}
		return nil
	})
}

// dispatchRuns claims the runs whose time has come, as far as there is room.
func (r *RunningScheduler) dispatchRuns(ctx context.Context, now time.Time) error {
	var full []string
	for page := firstPage; !r.isStopping(); page = claimPage {
		due, err := r.store.Due(ctx, now, full, page)
		if err != nil || len(due) == 0 {
			return err
		}
		slices.SortStableFunc(due, func(a, b engine.Head) int { return a.Wake.Compare(b.Wake) })
		memos, _ := r.store.MemosOf(ctx, due) // each run reads for itself what is missing
		blocked := map[string]bool{}          // by flow: true, nothing of it fits in; false, nothing that must be alone
		err = r.update(ctx, func(tx *store.Tx) error {
			clear(blocked)
			for _, h := range due {
				alone := r.alone(&h)
				if all, some := blocked[h.Flow]; all || some && alone {
					continue
				}
				isFull, err := r.claim(tx, h, claiming{memos: memos[h.Run]})
				if err != nil {
					return err
				}
				if isFull {
					blocked[h.Flow] = !alone
				}
			}
			return nil
		})
		if err != nil || r.places.none() || len(due) < page {
			return err // whoever gives a place back will ring
		}
		for id := range blocked {
			full = append(full, id)
		}
	}
	return nil
}

// suspectWatch is the suspect that was resumed last, and how long the next one
// has to wait for it.
type suspectWatch struct {
	mu    sync.Mutex
	run   int64
	until time.Time
}

// begin watches a suspect.
func (w *suspectWatch) begin(run int64, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.run, w.until = run, until
}

// left notes that the suspect is none any more, or no longer executing. It
// reports whether it was the one that is watched.
func (w *suspectWatch) left(run int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.run != run {
		return false
	}
	w.run, w.until = 0, time.Time{}
	return true
}

// window returns when the next suspect may be resumed, zero for at once.
func (w *suspectWatch) window(now time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.run == 0 || !now.Before(w.until) {
		return time.Time{}
	}
	return w.until
}

// cleared lets the next suspect follow at once.
func (r *RunningScheduler) cleared(run int64) {
	if r.suspect.left(run) {
		r.alarm.wake()
	}
}

// dispatchSuspect resumes one suspect, behind all others, unless the one
// before it is still being watched.
func (r *RunningScheduler) dispatchSuspect(ctx context.Context, now time.Time) error {
	if !r.suspects.Load() || !r.suspect.window(now).IsZero() || r.isStopping() {
		return nil
	}
	suspects, err := r.store.Suspects(ctx, now)
	if err != nil {
		return err
	}
	for _, h := range suspects {
		full := false
		r.suspect.begin(h.Run, now.Add(r.suspectFor))
		err := r.update(ctx, func(tx *store.Tx) (err error) {
			full, err = r.claim(tx, h, claiming{suspect: true})
			return err
		})
		if err != nil || !full {
			r.alarm.wake() // there may be another one behind it
			return err
		}
		r.suspect.left(h.Run)
	}
	return nil
}

// sweepMemos removes what closed visits have left behind.
func (r *RunningScheduler) sweepMemos(ctx context.Context) {
	for after := int64(0); after < math.MaxInt64 && !r.isStopping(); {
		visits, upto, err := r.store.ClosedVisits(ctx, after, sweepPage)
		for i := 0; i < len(visits) && err == nil; i++ {
			err = r.dropMemos(ctx, visits[i])
		}
		if err != nil {
			r.cleanupFailed("memos of closed visits are left for the next start", err)
			return
		}
		after = upto
	}
}

// dropMemos removes the memos of a closed visit.
func (r *RunningScheduler) dropMemos(ctx context.Context, v store.MemoVisit) error {
	for more := true; more; {
		err := r.update(ctx, func(tx *store.Tx) (err error) {
			more, err = tx.DropMemos(v)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// shortenWaits ends waits in time that began as a duration and that a clock set
// back, by a second or more, has made longer than that.
func (r *RunningScheduler) shortenWaits(ctx context.Context) {
	for !r.isStopping() {
		now := r.now()
		long, err := r.store.Overlong(ctx, now, claimPage)
		if err == nil && len(long) > 0 {
			err = r.update(ctx, func(tx *store.Tx) error {
				for _, h := range long {
					if err := tx.Shorten(h, now); err != nil {
						return err
					}
				}
				return nil
			})
			r.alarm.wake()
		}
		if err != nil && ctx.Err() == nil && r.store.Err() == nil && !r.isStopping() {
			r.log.Error("segno: shortening waits", "error", err)
		}
		if err != nil || len(long) == 0 {
			return
		}
	}
}
