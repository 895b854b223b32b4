package segno

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// A Breaker stops calls to something that fails: after Failures of them in a
// row it is open, and lets nobody through until Reset has passed. Then it is
// half-open: Probes calls at a time may try, so many successes close it, and
// one failure opens it again for another Reset.
//
// Use it by pointer, for as many steps and calls as share the thing that fails:
// as Step.Breaker, or from code with Do or Allow. The zero value is ready. The
// fields must not change once it is in use.
//
// A Breaker with a Name is kept in the file of the scheduler that finds it in a
// registered step or in Options.Breakers: a change of its state is durable
// before it has an effect on the next call, and what the file says holds from
// Start on. An open breaker keeps its end over a restart (never later than
// Reset from now, whatever the clock did), and a half-open one has to probe
// again. It can serve one running scheduler at a time: Start of a second one
// returns ErrConfig. A Breaker without a Name lives in memory only, and may be
// shared by any number of schedulers. Neither may be used inside a function that
// was given a Tx, since others may wait there for the commit.
type Breaker struct {
	// Name is the name in the file; empty: in memory only.
	Name string
	// Failures is the number of failures in a row that open it; 0 means 5.
	Failures int
	// Reset is how long it stays open; 0 means 30 s.
	Reset time.Duration
	// Probes is how many calls may try at the same time when it is half-open, and
	// how many successes close it; 0 means 1. A probe that is not back after
	// Reset gives its place to another one.
	Probes int

	mu        sync.Mutex // guards what follows; not held while a state is saved
	saving    chan struct{}
	owner     *RunningScheduler // whose file keeps it
	state     BreakerState      // "" is closed
	epoch     uint64            // counts the states; outcomes of an earlier one are ignored
	until     time.Time         // of an open one; of the last time it was open, half-open
	cause     string            // what opened it
	failures  int
	successes int
	probing   map[*Permit]time.Time // probes that are out, since when
}

// BreakerState says whether a Breaker lets calls through.
type BreakerState string

// The closed set of a breaker's states, the same words as in segno_breakers.
const (
	BreakerClosed   BreakerState = "closed"    // lets everybody through
	BreakerOpen     BreakerState = "open"      // lets nobody through, for a time
	BreakerHalfOpen BreakerState = "half_open" // lets Probes calls through
)

// CircuitOpen is the error of a call that a Breaker did not let through. It
// matches ErrCircuitOpen.
type CircuitOpen struct {
	Breaker string    // its Name
	Until   time.Time // when it lets a probe through; zero: its probes are out
	Cause   string    // the first line of the failure that opened it
}

// Error says until when the breaker is open, and what opened it.
func (e *CircuitOpen) Error() string {
	var b strings.Builder
	b.WriteString(ErrCircuitOpen.Error())
	if e.Breaker != "" {
		fmt.Fprintf(&b, ": breaker %q", e.Breaker)
	}
	if e.Until.IsZero() {
		b.WriteString(": half-open, and its probes are out")
	} else {
		fmt.Fprintf(&b, ": until %s", e.Until.UTC().Format(time.RFC3339Nano))
	}
	if e.Cause != "" {
		fmt.Fprintf(&b, "; opened by: %s", e.Cause)
	}
	return b.String()
}

// Is reports whether target is ErrCircuitOpen.
func (e *CircuitOpen) Is(target error) bool { return target == ErrCircuitOpen }

// A Permit is the leave to make one call. Its outcome must be told with Done.
type Permit struct {
	breaker *Breaker
	epoch   uint64
	done    bool // guarded by breaker.mu
}

// State returns the state, and until when it is open. An open breaker whose
// time has passed stays open until the next call.
func (b *Breaker) State() (BreakerState, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case "":
		return BreakerClosed, time.Time{}
	case BreakerOpen:
		return b.state, nearest(b.until, b.now().Add(b.reset()))
	}
	return b.state, time.Time{}
}

// Do calls fn if the breaker lets it through, and otherwise returns a
// *CircuitOpen. An error or a panic of fn is a failure; one that comes of the
// end of ctx is none, unless it was a deadline.
func (b *Breaker) Do(ctx context.Context, fn func(context.Context) error) error {
	p, err := b.Allow()
	if err != nil {
		return err
	}
	return p.around(ctx, func() error { return fn(ctx) })
}

// Allow asks for one call. It returns a *CircuitOpen if the breaker does not
// let it through, and ErrConfig if a field is negative. Whoever gets a Permit
// must call its Done, best deferred.
func (b *Breaker) Allow() (*Permit, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	b.enter()
	defer b.mu.Unlock()
	now := b.now()
	if b.state == BreakerOpen {
		b.until = nearest(b.until, now.Add(b.reset())) // the clock may have been set back
		if now.Before(b.until) {
			return nil, &CircuitOpen{Breaker: b.Name, Until: b.until, Cause: b.cause}
		}
		b.turn(BreakerHalfOpen, b.until, b.cause)
	}
	p := &Permit{breaker: b, epoch: b.epoch}
	if b.state == BreakerHalfOpen {
		if b.out(now) >= b.probes() {
			return nil, &CircuitOpen{Breaker: b.Name, Cause: b.cause}
		}
		b.probing[p] = now
	}
	return p, nil
}

// Done tells how the call ended: nil is a success, an error a failure. One that
// was cancelled (context.Canceled, ErrStopped) is neither; it frees the place
// of a probe. Only the first Done of a permit counts, and only while the
// breaker is in the state in which it gave the permit. Where that changes the
// state of a Breaker with a Name, Done returns when the change is durable.
func (p *Permit) Done(err error) {
	if p == nil {
		return
	}
	b := p.breaker
	b.enter()
	defer b.mu.Unlock()
	if p.done {
		return
	}
	p.done = true
	delete(b.probing, p)
	switch {
	case p.epoch != b.epoch:
	case err == nil || isSnooze(err):
		b.succeeded()
	case errors.Is(err, context.Canceled), errors.Is(err, ErrStopped), errors.Is(err, engine.ErrCancelledRun):
	default:
		b.failed(err)
	}
}

// around makes the call and tells its outcome: at the latest when ctx ends,
// since a call that does not return must not keep a probe's place. A panic goes
// on with its stack.
func (p *Permit) around(ctx context.Context, call func() error) error {
	if p == nil {
		return call()
	}
	stop := context.AfterFunc(ctx, func() { p.Done(outcomeOf(ctx, context.Cause(ctx))) })
	defer stop()
	returned := false
	defer func() {
		if !returned {
			p.Done(fmt.Errorf("%w: the call did not return", ErrPanic))
		}
	}()
	err := call()
	returned = true
	p.Done(outcomeOf(ctx, err))
	return err
}

// outcomeOf is what an error says about the other side: nothing, if the call
// was ended from outside, or if it was never made.
func outcomeOf(ctx context.Context, err error) error {
	if err == nil || isSnooze(err) {
		return nil
	}
	cause := context.Cause(ctx)
	timeout := errors.Is(cause, context.DeadlineExceeded) || engine.AttemptTimedOut(cause)
	if cause != nil && !timeout || errors.Is(err, engine.ErrUndecodable) {
		return context.Canceled
	}
	if timeout && errors.Is(err, context.Canceled) { // how some clients report any end of their context
		return cause
	}
	return err
}

// check finds what is wrong with the configuration.
func (b *Breaker) check() error {
	if b == nil {
		return configFault("the breaker is nil")
	}
	if b.Failures < 0 || b.Reset < 0 || b.Probes < 0 {
		return configFault("breaker %q has Failures %d, Reset %v, Probes %d; none can be negative", b.Name, b.Failures, b.Reset, b.Probes)
	}
	return nil
}

func (b *Breaker) threshold() int       { return orDefault(b.Failures, 5) }
func (b *Breaker) reset() time.Duration { return orDefault(b.Reset, 30*time.Second) }
func (b *Breaker) probes() int          { return orDefault(b.Probes, 1) }

func orDefault[T int | time.Duration](v, zero T) T {
	if v == 0 {
		return zero
	}
	return v
}

// now is the time by the clock that the state is kept with.
func (b *Breaker) now() time.Time {
	if b.owner != nil {
		return b.owner.now()
	}
	return time.Now()
}

func nearest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// enter takes the lock when no change of the state is on its way to the file:
// until it is there it has no effect, and nobody is told of the one before.
func (b *Breaker) enter() {
	b.mu.Lock()
	for b.saving != nil {
		saved := b.saving
		b.mu.Unlock()
		<-saved
		b.mu.Lock()
	}
	if b.state == "" {
		b.state = BreakerClosed
	}
}

// out counts the probes that are out. One that was out too long is lost, and
// must not keep its place.
func (b *Breaker) out(now time.Time) int {
	for p, since := range b.probing {
		switch {
		case since.After(now): // the clock was set back
			b.probing[p] = now
		case now.Sub(since) >= b.reset():
			delete(b.probing, p)
		}
	}
	return len(b.probing)
}

// succeeded counts a success in the present state.
func (b *Breaker) succeeded() {
	b.failures = 0
	if b.state != BreakerHalfOpen {
		return
	}
	if b.successes++; b.successes >= b.probes() {
		b.turn(BreakerClosed, time.Time{}, "")
	}
}

// failed counts a failure in the present state.
func (b *Breaker) failed(err error) {
	b.failures++
	if b.state == BreakerHalfOpen || b.failures >= b.threshold() {
		cause, _, _ := strings.Cut(err.Error(), "\n")
		b.turn(BreakerOpen, b.now().Add(b.reset()), cause)
	}
}

// turn makes a change of the state: in the file first. The caller holds mu,
// which is given up meanwhile; enter keeps everybody else out.
func (b *Breaker) turn(to BreakerState, until time.Time, cause string) {
	row := store.Breaker{Name: b.Name, State: string(to), Until: until, Failures: b.failures, Error: cause}
	if b.owner != nil {
		owner, saved := b.owner, make(chan struct{})
		b.saving = saved
		b.mu.Unlock()
		owner.keepBreaker(row)
		b.mu.Lock()
		b.saving = nil
		close(saved)
	}
	b.epoch++
	b.state, b.until, b.cause = to, until, cause
	b.failures, b.successes, b.probing = 0, 0, map[*Permit]time.Time{}
}
