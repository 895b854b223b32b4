package segno

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
)

// A Limiter bounds how much is done in a time: a *Bucket, a *Window, or Tiers of
// both. Use one for as many steps and calls as share the limit: as Step.Limiter,
// where an attempt costs 1 (of Tiers, what they say), or from code. All may be
// used from several goroutines.
//
// A cost of 0 is free. A negative one, and a limiter that is not usable as
// configured, is ErrConfig. Whoever does not get what he asks for gets a
// *RateLimited, which says when to come again.
type Limiter interface {
	// TryTake takes n at once, or returns a *RateLimited and takes nothing.
	TryTake(n int) error
	// Wait takes n as soon as it can. Nobody queues: whoever asks at the right
	// moment is served. It returns the cause of ctx when that ends first, and a
	// *RateLimited at once if n is above the capacity.
	Wait(ctx context.Context, n int) error
	// Reserve is TryTake for something that may not happen after all: what the
	// Reservation refunds is there for others.
	Reserve(n int) (*Reservation, error)

	check() error       // is it usable as configured?
	fits(n int) error   // can n ever be had?
	windows() []*Window // to be kept in the file
}

// never is the RetryAfter of what can never be had.
const never = time.Duration(math.MaxInt64)

// RateLimited is the error of a Limiter that refuses. It matches ErrRateLimited.
type RateLimited struct {
	// Tier is the name of the limiter that refuses, or of its Tier.
	Tier string
	// RetryAfter is when there will be enough, if nobody else comes: at least
	// 1 ms. The largest Duration: the cost is above the capacity, there never
	// will be.
	RetryAfter time.Duration

	// stand returns how long a run should stay away that others like it come to,
	// too; nil: RetryAfter.
	stand func() time.Duration
}

// Error names the limiter and says when to come again.
func (e *RateLimited) Error() string {
	by := ""
	if e.Tier != "" {
		by = fmt.Sprintf(" by %q", e.Tier)
	}
	if e.RetryAfter == never {
		return fmt.Sprintf("%v%s: the cost is above the capacity, and can never be had", ErrRateLimited, by)
	}
	return fmt.Sprintf("%v%s: retry after %v", ErrRateLimited, by, e.RetryAfter)
}

// Is reports whether target is ErrRateLimited.
func (e *RateLimited) Is(target error) bool { return target == ErrRateLimited }

// A Reservation is something taken that may still be given back. The first call
// of Commit or Refund counts, the others do nothing: defer Refund, and Commit
// when it has happened. One that is never settled keeps what it took.
type Reservation struct {
	once   sync.Once
	settle func(keep bool) // nil: nothing to settle
}

// Commit keeps what was reserved.
func (r *Reservation) Commit() { r.end(true) }

// Refund gives back what was reserved, where it still matters: never more than
// the capacity, and nothing to a window that has begun since.
func (r *Reservation) Refund() { r.end(false) }

func (r *Reservation) end(keep bool) {
	if r == nil || r.settle == nil {
		return
	}
	r.once.Do(func() { r.settle(keep) })
}

// tryTake is TryTake for any limiter.
func tryTake(l Limiter, n int) error {
	res, err := l.Reserve(n)
	res.Commit()
	return err
}

// waitFor is Wait for any limiter.
func waitFor(ctx context.Context, l Limiter, n int) error {
	for ctx.Err() == nil {
		err := l.TryTake(n)
		var limited *RateLimited
		if !errors.As(err, &limited) || limited.RetryAfter == never {
			return err
		}
		t := time.NewTimer(limited.RetryAfter)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	return context.Cause(ctx)
}

// fitting checks a cost against the capacity.
func fitting(name string, n, capacity int) error {
	switch {
	case n < 0:
		return configFault("limiter %q is asked for %d", name, n)
	case n > capacity:
		return &RateLimited{Tier: name, RetryAfter: never}
	}
	return nil
}

// measured checks the fields that a bucket and a window have in common.
func measured(kind, name string, limit int, per time.Duration) error {
	if limit <= 0 || per < 0 {
		return configFault("%s %q has Limit %d, Per %v; it needs a Limit above 0, and Per cannot be negative", kind, name, limit, per)
	}
	return nil
}

// A line is an estimate of how many runs wait for a limiter. It spreads them, so
// that they do not come back all at once for what only one of them can have. It
// promises nothing: whoever comes first takes what is there.
type line struct {
	mu   sync.Mutex
	at   time.Time // when the last one in it is to come back
	load int       // cost of those that come back then
}

// stand returns how long to stay away for a cost that can be met after wait at
// the earliest. Behind that the line moves on by step whenever batch is spent.
func (l *line) stand(now time.Time, wait time.Duration, cost, batch int, step time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch first := now.Add(wait); {
	case l.at.Before(first):
		l.at, l.load = first, 0
	case cost > batch-l.load:
		l.at, l.load = l.at.Add(step), 0
	}
	l.load += cost
	return l.at.Sub(now)
}

// clear forgets the line: there is enough for everybody.
func (l *line) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.load = time.Time{}, 0
}
