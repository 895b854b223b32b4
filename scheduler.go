package segno

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Options configure a Scheduler. The zero value is ready.
type Options struct {
	// Logger receives what the scheduler has to say; nil: nothing. Data of runs
	// is never logged.
	Logger *slog.Logger
	// Resources are set up in order before any run, and torn down in reverse.
	Resources []Resource
	// Observers are told what happens to runs, in this order.
	Observers []Observer
	// Breakers are those that are used from code only, to be kept in the file like
	// those of the steps.
	Breakers []*Breaker
	// Limiters are those that are used from code only, likewise.
	Limiters []Limiter
	// Schema, if set, runs at each Start after segno's own migration: the place
	// for CREATE TABLE IF NOT EXISTS of the application.
	Schema func(tx Tx) error
	// Standby makes Start wait until the file is free, instead of ErrLocked.
	Standby bool
	// MaxConcurrent bounds the runs that execute at the same time, over all
	// flows; 0 means 1,000.
	MaxConcurrent int
	// MaxData bounds the JSON of a run's data in bytes; 0 means 1 MiB.
	MaxData int
	// MaxCrashes is the number of times the process may die in one visit before
	// the run fails with ErrCrashLoop; 0 means 5.
	MaxCrashes int
	// SuspectFor is how long a run that died with the process three times or
	// more must live before the next such run is resumed; 0 means 1 s.
	SuspectFor time.Duration
	// ParkAfter is the length of wait from which on a run gives up its
	// goroutine; 0 means 1 s.
	ParkAfter time.Duration
	// Grace is how long a step may still succeed after its context has ended; 0
	// means 5 s.
	Grace time.Duration
	// AbandonAfter is how much longer its goroutine is waited for before the run
	// goes on without it; 0 means 1 min.
	AbandonAfter time.Duration
	// StopTimeout bounds the Stop that happens when Start's context ends; 0
	// means 30 s.
	StopTimeout time.Duration
	// Retention says what is deleted as it grows old; the zero value keeps runs
	// for at least 30 days: see there.
	Retention Retention
	// SmallWAL leaves the write-ahead log as small as it is: slower, but the file
	// beside the database does not take 17 MB. For tests.
	SmallWAL bool
}

// withDefaults fills in the zero fields.
func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, n := range []struct {
		field *int
		value int
	}{{&o.MaxConcurrent, 1000}, {&o.MaxData, 1 << 20}, {&o.MaxCrashes, 5}} {
		if *n.field == 0 {
			*n.field = n.value
		}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.SuspectFor, time.Second}, {&o.ParkAfter, time.Second}, {&o.Grace, 5 * time.Second},
		{&o.AbandonAfter, time.Minute}, {&o.StopTimeout, 30 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return o
}

// validate finds every fault of the options.
func (o Options) validate() error {
	var errs []error
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"MaxConcurrent", int64(o.MaxConcurrent)}, {"MaxData", int64(o.MaxData)}, {"MaxCrashes", int64(o.MaxCrashes)},
		{"SuspectFor", int64(o.SuspectFor)}, {"ParkAfter", int64(o.ParkAfter)}, {"Grace", int64(o.Grace)},
		{"AbandonAfter", int64(o.AbandonAfter)}, {"StopTimeout", int64(o.StopTimeout)},
	} {
		if f.n < 0 {
			errs = append(errs, fmt.Errorf("%w: Options.%s is negative", ErrConfig, f.name))
		}
	}
	errs = append(errs, o.Retention.validate())
	errs = append(errs, (&observers{list: o.Observers}).validate()...)
	return errors.Join(append(errs, (&resources{list: o.Resources}).validate())...)
}

// A Scheduler collects flows for one database file, until Start. Its methods
// may be called from several goroutines.
type Scheduler struct {
	path string
	opts Options
	now  func() time.Time // tests of clock steps replace it
	// built is when the program was built: the clock cannot be right before.
	built time.Time

	mu      sync.Mutex // guards what follows
	flows   []*flow
	byID    map[string]*flow
	started bool
	guards  *guards // of all flows, made by Start
}

// New returns a scheduler for the database file at path, which Start creates
// if it is not there. Nothing is opened yet.
func New(path string, o Options) *Scheduler {
	return &Scheduler{path: path, opts: o.withDefaults(), now: wallClock, built: buildTime(), byID: map[string]*flow{}}
}

// Every registers a flow with the schedule Every(d).
func (s *Scheduler) Every(id string, w Definition, d time.Duration) error {
	return s.Add(Flow{ID: id, Workflow: w, Schedule: Every(d)})
}

// EverySeconds is Every with n seconds.
func (s *Scheduler) EverySeconds(id string, w Definition, n int) error {
	return s.everyN(id, w, n, time.Second)
}

// EveryMinutes is Every with n minutes.
func (s *Scheduler) EveryMinutes(id string, w Definition, n int) error {
	return s.everyN(id, w, n, time.Minute)
}

// EveryHours is Every with n hours.
func (s *Scheduler) EveryHours(id string, w Definition, n int) error {
	return s.everyN(id, w, n, time.Hour)
}

// everyN guards the multiplication against overflow.
func (s *Scheduler) everyN(id string, w Definition, n int, unit time.Duration) error {
	if int64(n) > int64(1<<63-1)/int64(unit) {
		return fmt.Errorf("flow %q: %w: an interval of %d × %v is too long", id, ErrSchedule, n, unit)
	}
	return s.Every(id, w, time.Duration(n)*unit)
}

// Cron registers a flow with the schedule Cron(expr).
func (s *Scheduler) Cron(id string, w Definition, expr string) error {
	return s.Add(Flow{ID: id, Workflow: w, Schedule: Cron(expr)})
}

// Manual registers a flow that runs only when triggered.
func (s *Scheduler) Manual(id string, w Definition) error {
	return s.Add(Flow{ID: id, Workflow: w})
}

// Add registers a flow. It returns every fault it finds, joined: ErrExists for
// an id that is taken, ErrSchedule or ErrNeverFires for the schedule, ErrConfig
// for the rest. A flow whose workflow is at fault is refused by Start again,
// unless it was added anew, without the fault.
func (s *Scheduler) Add(f Flow) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return fmt.Errorf("flow %q: %w", f.ID, ErrStarted)
	}
	old := s.byID[f.ID]
	if old != nil && old.fault == nil {
		return fmt.Errorf("flow %q: %w", f.ID, ErrExists)
	}
	fl, err := newFlow(f, len(s.flows))
	if err != nil {
		return fmt.Errorf("flow %q: %w", f.ID, err)
	}
	s.put(fl, old)
	return fl.named(fl.fault)
}

// put registers a flow: in the place of an older one, if there is one.
func (s *Scheduler) put(fl, old *flow) {
	s.byID[fl.ID] = fl
	if old == nil {
		s.flows = append(s.flows, fl)
		return
	}
	fl.position = old.position
	s.flows[old.position] = fl
}

// SetBackoff replaces the backoff policy of a registered flow.
func (s *Scheduler) SetBackoff(id string, p BackoffPolicy) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fl := s.byID[id]
	switch {
	case s.started:
		return fmt.Errorf("flow %q: %w", id, ErrStarted)
	case fl == nil:
		return fmt.Errorf("flow %q: %w", id, ErrNotFound)
	}
	if err := p.validate(); err != nil {
		return fl.named(err)
	}
	fl.Backoff = p
	return nil
}

// Len returns the number of registered flows.
func (s *Scheduler) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flows)
}

// IsEmpty reports whether no flow is registered.
func (s *Scheduler) IsEmpty() bool { return s.Len() == 0 }

// Contains reports whether a flow of that id is registered.
func (s *Scheduler) Contains(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id] != nil
}

// Start checks all flows, takes the file, recovers what the last owner left,
// and starts dispatching. It returns ErrLocked at once if the file has an
// owner, unless Options.Standby is set. When ctx ends later, the scheduler
// stops as by Stop with Options.StopTimeout; step contexts do not descend from
// it. After an error the scheduler may be started again.
func (s *Scheduler) Start(ctx context.Context) (*RunningScheduler, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	r, err := start(ctx, s) // may wait long, as a standby
	if err != nil {
		s.mu.Lock()
		s.started = false
		s.mu.Unlock()
	}
	return r, err
}

// begin checks everything that was registered, and closes the registration.
func (s *Scheduler) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return ErrStarted
	}
	errs := []error{s.opts.validate()}
	for _, f := range s.flows {
		errs = append(errs, f.named(f.fault))
	}
	guards, fault := newGuards(s.flows, s.opts)
	err := errors.Join(append(errs, fault)...)
	s.guards = guards
	s.started = err == nil
	return err
}
