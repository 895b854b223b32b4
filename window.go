package segno

import (
	"context"
	"sync"
	"time"

	"github.com/segnodev/segno/store"
)

// keptFrom is how long a window must be to be worth keeping in the file.
const keptFrom = time.Minute

// A Window is a fixed window: Limit in every Per. It opens with the first use,
// gives its whole quota at once, and the first use behind its end opens the
// next one. Use it by pointer; the fields must not change once it is in use.
//
// A Window with a Name and a Per of more than a minute is kept in the file of
// the scheduler that finds it in a registered step or in Options.Limiters. What
// is used is written at most once a second, and at Stop: a crash forgets up to
// the last second of it, and refunds what was reserved and not committed. It
// can serve one running scheduler at a time: Start of a second one returns
// ErrConfig.
//
// It goes by the wall clock. A clock that is set back makes no window longer
// than Per from now; one that is set forward ends it early.
type Window struct {
	// Name is the one in errors and in the file.
	Name string
	// Limit is what may be used in one window.
	Limit int
	// Per is its length; 0 means 1 s.
	Per time.Duration

	line     line
	mu       sync.Mutex // guards what follows
	owner    *RunningScheduler
	start    time.Time // zero: none was opened yet
	used     int       // reserved included
	reserved int
	opened   uint64 // counts the windows; an earlier one gets nothing back
	changes  uint64 // of what is to be written
	written  uint64 // the last of them that was
}

// TryTake takes n of the quota at once: see Limiter.
func (w *Window) TryTake(n int) error { return tryTake(w, n) }

// Wait takes n of the quota as soon as it is there: see Limiter.
func (w *Window) Wait(ctx context.Context, n int) error { return waitFor(ctx, w, n) }

// Reserve takes n of the quota that may be given back: see Limiter.
func (w *Window) Reserve(n int) (*Reservation, error) {
	if err := w.fits(n); err != nil || n == 0 {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.roll()
	if n > w.Limit-w.used {
		wait := max(w.start.Add(w.per()).Sub(now), time.Millisecond)
		return nil, &RateLimited{Tier: w.Name, RetryAfter: wait, stand: func() time.Duration {
			return w.line.stand(now, wait, n, w.Limit, w.per())
		}}
	}
	w.used += n
	w.reserved += n
	opened := w.opened
	return &Reservation{settle: func(keep bool) { w.settle(n, opened, keep) }}, nil
}

// settle ends a reservation that was made in the given window.
func (w *Window) settle(n int, opened uint64, keep bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if opened != w.opened {
		return
	}
	w.reserved -= n
	if !keep {
		w.used -= n
		return
	}
	w.touch()
}

// touch notes that the file does not have the latest any more.
func (w *Window) touch() {
	w.changes++
	if w.owner != nil {
		w.owner.guards.changed()
	}
}

// Used returns what is used or reserved of the window that is open, 0 if none is.
func (w *Window) Used() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.open(w.now()) {
		return 0
	}
	return w.used
}

// Remaining returns what may still be used of the window that is open, or
// would be by the next use.
func (w *Window) Remaining() int { return max(w.Limit-w.Used(), 0) }

// ResetsAt returns the end of the window that is open, the zero time if none is.
func (w *Window) ResetsAt() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	if !w.open(now) {
		return time.Time{}
	}
	return nearest(w.start, now).Add(w.per())
}

// roll opens a window if none is open, and returns the time.
func (w *Window) roll() time.Time {
	now := w.now()
	if w.start.After(now) { // the clock was set back
		w.start = now
		w.line.clear()
		w.touch()
	}
	if w.open(now) {
		return now
	}
	if w.used < w.Limit {
		w.line.clear() // nobody was sent away in the end
	}
	w.start, w.used, w.reserved = now, 0, 0
	w.opened++
	return now
}

// open reports whether the window has not ended.
func (w *Window) open(now time.Time) bool {
	return !w.start.IsZero() && now.Before(w.start.Add(w.per()))
}

// now is the time by the clock that the window is kept with.
func (w *Window) now() time.Time {
	if w.owner != nil {
		return w.owner.now()
	}
	return wallClock()
}

func (w *Window) per() time.Duration { return orDefault(w.Per, time.Second) }

func (w *Window) check() error {
	if w == nil {
		return configFault("the limiter is nil")
	}
	return measured("window", w.Name, w.Limit, w.Per)
}

func (w *Window) fits(n int) error {
	if err := w.check(); err != nil {
		return err
	}
	return fitting(w.Name, n, w.Limit)
}

func (w *Window) windows() []*Window {
	if w.Name == "" || w.per() <= keptFrom {
		return nil
	}
	return []*Window{w}
}

// join ties the window to a scheduler and takes what its file says.
func (w *Window) join(r *RunningScheduler, kept store.Limiter) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owner != nil {
		return configFault("window %q is in use by another running scheduler; give each one of its own", w.Name)
	}
	w.owner = r
	w.start, w.used, w.reserved = kept.Start, kept.Used, 0
	w.opened++
	w.written = w.changes
	w.line.clear()
	return nil
}

// leave unties the window from its scheduler.
func (w *Window) leave(r *RunningScheduler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owner == r {
		w.owner = nil
	}
}

// unwritten returns what the file does not have yet.
func (w *Window) unwritten() (row store.Limiter, changes uint64, dirty bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return store.Limiter{
		Name: w.Name, Start: w.start, Until: w.start.Add(w.per()), Used: w.used - w.reserved, Quota: w.Limit, At: w.now(),
	}, w.changes, w.changes != w.written
}

// wrote notes what the file has now.
func (w *Window) wrote(changes uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written = changes
}
