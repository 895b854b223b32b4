package segno

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// doFunc is a step's Do without its types.
type doFunc = func(context.Context, []byte) (string, []byte, error)

// guarded puts a step's limiter and breaker before its Do: see Step.
func guarded(do doFunc, b *Breaker, l Limiter) doFunc {
	if b == nil && l == nil {
		return do
	}
	return func(ctx context.Context, data []byte) (next string, out []byte, err error) {
		taken, err := grant(l)
		if err != nil {
			return "", nil, err
		}
		permit, err := permitted(b)
		if err != nil {
			taken.Refund()
			return "", nil, Permanent(err)
		}
		taken.Commit()
		err = permit.around(ctx, func() error {
			next, out, err = do(ctx, data)
			return err
		})
		return next, out, err
	}
}

// grant asks a step's limiter. A refusal is a wait of the run.
func grant(l Limiter) (*Reservation, error) {
	if l == nil {
		return nil, nil
	}
	taken, err := l.Reserve(1)
	var limited *RateLimited
	switch {
	case err == nil:
		return taken, nil
	case !errors.As(err, &limited) || limited.RetryAfter == never:
		return nil, Permanent(err)
	}
	wait := limited.RetryAfter
	if limited.stand != nil {
		wait = max(wait, limited.stand())
	}
	return nil, &engine.Steer{Snooze: true, Keep: true, Unbegun: true, After: wait}
}

// permitted asks a step's breaker.
func permitted(b *Breaker) (*Permit, error) {
	if b == nil {
		return nil, nil
	}
	return b.Allow()
}

// guards are the breakers and limiters that a scheduler keeps in its file.
type guards struct {
	breakers []*Breaker
	windows  []*Window
	ring     chan struct{} // when a window was used
}

// newGuards finds what is to be kept, and every fault of it.
func newGuards(flows []*flow, o Options) (*guards, error) {
	g := &guards{ring: make(chan struct{}, 1)}
	var errs []error
	for _, b := range o.Breakers {
		errs = append(errs, b.check())
	}
	for _, l := range o.Limiters {
		if l == nil {
			errs = append(errs, configFault("Options.Limiters has a nil"))
			continue
		}
		errs = append(errs, l.check())
	}
	breakers, limiters := o.Breakers, o.Limiters
	for _, f := range flows {
		breakers = append(breakers[:len(breakers):len(breakers)], f.def.breakers...)
		limiters = append(limiters[:len(limiters):len(limiters)], f.def.limiters...)
	}
	if err := errors.Join(errs...); err != nil {
		return g, err
	}
	errs = append(errs, g.addBreakers(breakers)...)
	for _, l := range limiters {
		errs = append(errs, g.addWindows(l.windows())...)
	}
	return g, errors.Join(errs...)
}

// addBreakers adds breakers by their names.
func (g *guards) addBreakers(list []*Breaker) (faults []error) {
	known := map[string]*Breaker{}
	for _, b := range list {
		switch other := known[b.Name]; {
		case b.Name == "" || other == b:
		case other != nil:
			faults = append(faults, configFault("two breakers have the name %q; use one, by pointer, or give them different names", b.Name))
		default:
			known[b.Name] = b
			g.breakers = append(g.breakers, b)
		}
	}
	return faults
}

// addWindows adds windows by their names.
func (g *guards) addWindows(list []*Window) (faults []error) {
	for _, w := range list {
		known := false
		for _, other := range g.windows {
			known = known || other == w
			if other != w && other.Name == w.Name {
				faults = append(faults, configFault("two windows have the name %q; use one, by pointer, or give them different names", w.Name))
			}
		}
		if !known {
			g.windows = append(g.windows, w)
		}
	}
	return faults
}

// join takes over what the file says of them.
func (g *guards) join(ctx context.Context, r *RunningScheduler) error {
	breakers, err := r.store.Breakers(ctx)
	if err != nil {
		return fmt.Errorf("reading the breakers: %w", err)
	}
	limiters, err := r.store.Limiters(ctx)
	if err != nil {
		return fmt.Errorf("reading the limiters: %w", err)
	}
	var errs []error
	for _, b := range g.breakers {
		errs = append(errs, b.join(r, breakers[b.Name]))
	}
	for _, w := range g.windows {
		errs = append(errs, w.join(r, limiters[w.Name]))
	}
	return errors.Join(errs...)
}

// leave gives them back: another scheduler may have them.
func (g *guards) leave(r *RunningScheduler) {
	for _, b := range g.breakers {
		b.leave(r)
	}
	for _, w := range g.windows {
		w.leave(r)
	}
}

// changed rings for the loop that writes the windows.
func (g *guards) changed() {
	select {
	case g.ring <- struct{}{}:
	default:
	}
}

// keepWindows writes what is used of the windows, at most once a second.
func (r *RunningScheduler) keepWindows() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // a commit that cannot be made holds a Stop up no longer than its patience
		select {
		case <-r.hurry:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		select {
		case <-r.guards.ring:
		case <-r.stopping:
			return
		}
		if err := r.writeWindows(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("segno: the use of the limiters was not written", "error", err)
		}
		t := time.NewTimer(time.Second)
		select {
		case <-t.C:
		case <-r.stopping:
			t.Stop()
			return
		}
	}
}

// writeWindows writes every window whose use the file does not have, in one commit.
func (r *RunningScheduler) writeWindows(ctx context.Context) error {
	var rows []store.Limiter
	var wrote []func()
	for _, w := range r.guards.windows {
		if row, changes, dirty := w.unwritten(); dirty {
			rows = append(rows, row)
			wrote = append(wrote, func() { w.wrote(changes) })
		}
	}
	if len(rows) == 0 {
		return nil
	}
	err := r.store.Update(ctx, func(tx *store.Tx) error {
		for _, row := range rows {
			if err := tx.PutLimiter(row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, done := range wrote {
		done()
	}
	return nil
}

// keepLast writes the windows at the end, if the disk lets it.
func (r *RunningScheduler) keepLast() error {
	if r.store.Err() != nil {
		return nil // said already
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.opts.Grace)
	defer cancel()
	if err := r.writeWindows(ctx); err != nil {
		return fmt.Errorf("the use of the limiters was not written: %w", err)
	}
	return nil
}

// join ties the breaker to a scheduler and takes what its file says.
func (b *Breaker) join(r *RunningScheduler, kept store.Breaker) error {
	b.enter()
	defer b.mu.Unlock()
	if b.owner != nil {
		return configFault("breaker %q is in use by another running scheduler; give each one of its own, or none a Name", b.Name)
	}
	b.owner = r
	b.epoch++
	b.failures, b.successes, b.probing = 0, 0, map[*Permit]time.Time{}
	b.state, b.until, b.cause = BreakerClosed, time.Time{}, ""
	now := r.now()
	switch BreakerState(kept.State) {
	case BreakerOpen:
		b.state, b.until, b.cause = BreakerOpen, nearest(kept.Until, now.Add(b.reset())), kept.Error
	case BreakerHalfOpen: // its probes died with their process
		b.state, b.until, b.cause = BreakerOpen, nearest(kept.Until, now), kept.Error
	}
	return nil
}

// leave unties the breaker from its scheduler; what it knows it still knows.
func (b *Breaker) leave(r *RunningScheduler) {
	b.enter()
	defer b.mu.Unlock()
	if b.owner == r {
		b.owner = nil
	}
}

// keepBreaker makes a breaker's new state durable. Where that is not possible
// any more the state holds in memory all the same.
func (r *RunningScheduler) keepBreaker(row store.Breaker) {
	row.At = r.now()
	err := r.store.Update(context.Background(), func(tx *store.Tx) error { return tx.PutBreaker(row) })
	attrs := []any{"breaker", row.Name, "state", row.State, "until", row.Until, "cause", row.Error}
	switch {
	case err != nil:
		r.log.Error("segno: a breaker's state was not written", append(attrs, "error", err)...)
	case row.State == string(BreakerOpen):
		r.log.Warn("segno: breaker opened", attrs...)
	default:
		r.log.Info("segno: breaker is "+row.State, attrs...)
	}
}
