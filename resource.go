package segno

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// A Resource is something that steps share and that lives as long as the
// scheduler runs: a client, a pool, a connection. Resources are set up in the
// order of Options.Resources before any run, and torn down in reverse after
// the last.
type Resource struct {
	// Key is the name for ResourceFrom.
	Key string
	// Setup makes the value; its error fails Start.
	Setup func(context.Context) (any, error)
	// Teardown, if set, takes the value back.
	Teardown func(context.Context, any) error
	// Health, if set, is asked by RunningScheduler.Health and ResourceHealth.
	Health func(context.Context, any) Health
	// Timeout bounds each of the three; 0 means 30 s. What a Setup makes behind
	// its time is not torn down.
	Timeout time.Duration
}

// Health says how well something works; more is worse.
type Health int

// The degrees of health.
const (
	Healthy Health = iota
	Degraded
	Unhealthy
)

// String returns the degree in lower case.
func (h Health) String() string {
	switch h {
	case Healthy:
		return "healthy"
	case Degraded:
		return "degraded"
	}
	return "unhealthy"
}

// ResourceFrom returns what the Setup of the resource with the given key
// returned, in a step. It returns ErrConfig outside a step, for an unknown key
// (which is ErrNotFound, too) and for a value of another type.
func ResourceFrom[T any](ctx context.Context, key string) (T, error) {
	var zero T
	_, r, err := visitFrom(ctx)
	if err != nil {
		return zero, err
	}
	v, ok := r.resources.values[key]
	if !ok {
		return zero, fmt.Errorf("%w: resource %q: %w", ErrConfig, key, ErrNotFound)
	}
	t, ok := v.(T)
	if !ok {
		return zero, fmt.Errorf("%w: resource %q is a %T, not a %T", ErrConfig, key, v, zero)
	}
	return t, nil
}

// resources are the resources of a running scheduler.
type resources struct {
	list   []Resource
	values map[string]any
	up     int // how many are set up
}

// validate finds every fault of the registrations.
func (rs *resources) validate() error {
	var errs []error
	seen := map[string]bool{}
	for i, r := range rs.list {
		switch {
		case r.Key == "":
			errs = append(errs, fmt.Errorf("%w: resource %d has no Key", ErrConfig, i))
		case seen[r.Key]:
			errs = append(errs, fmt.Errorf("%w: resource %q", ErrExists, r.Key))
		case r.Setup == nil:
			errs = append(errs, fmt.Errorf("%w: resource %q has no Setup", ErrConfig, r.Key))
		}
		seen[r.Key] = true
	}
	return errors.Join(errs...)
}

// setUp sets all resources up in order. If one fails, those before it are torn
// down in reverse.
func (rs *resources) setUp(ctx context.Context) error {
	rs.values = map[string]any{}
	for _, r := range rs.list {
		var v any
		err := bounded(ctx, r.Timeout, func(ctx context.Context) (err error) {
			v, err = r.Setup(ctx)
			return err
		})
		if err != nil {
			return errors.Join(fmt.Errorf("resource %q: %w", r.Key, err), rs.tearDown(context.WithoutCancel(ctx)))
		}
		rs.values[r.Key] = v
		rs.up++
	}
	return nil
}

// tearDown takes back what is set up, last first, whatever fails.
func (rs *resources) tearDown(ctx context.Context) error {
	var errs []error
	for ; rs.up > 0; rs.up-- {
		r := rs.list[rs.up-1]
		if r.Teardown == nil {
			continue
		}
		err := bounded(ctx, r.Timeout, func(ctx context.Context) error { return r.Teardown(ctx, rs.values[r.Key]) })
		if err != nil {
			errs = append(errs, fmt.Errorf("teardown of resource %q: %w", r.Key, err))
		}
	}
	return errors.Join(errs...)
}

// health asks every resource how it is, by its key. One without a Health is
// taken to be well.
func (rs *resources) health(ctx context.Context) map[string]Health {
	report := make(map[string]Health, len(rs.list))
	for _, r := range rs.list {
		report[r.Key] = r.probe(ctx, rs.values[r.Key])
	}
	return report
}

// probe asks one resource; one that panics or hangs is unhealthy.
func (r Resource) probe(ctx context.Context, v any) Health {
	if r.Health == nil {
		return Healthy
	}
	var h atomic.Int64
	h.Store(int64(Unhealthy))
	_ = bounded(ctx, r.Timeout, func(ctx context.Context) error {
		if v := r.Health(ctx, v); ctx.Err() == nil { // an answer behind its time is none
			h.Store(int64(v))
		}
		return nil
	})
	return Health(h.Load())
}

// bounded calls fn with a timeout and turns its panic into an error.
func bounded(ctx context.Context, d time.Duration, fn func(context.Context) error) (err error) {
	if d <= 0 {
		d = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		err := fmt.Errorf("%w: it called runtime.Goexit", ErrPanic)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack())
			}
			done <- err
		}()
		err = fn(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
