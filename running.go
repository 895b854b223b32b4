package segno

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// A RunningScheduler is a Scheduler after Start. Its methods may be called
// from several goroutines, steps included, except from inside a function that
// was given a Tx.
type RunningScheduler struct {
	queries
	opts       Options
	log        *slog.Logger
	now        func() time.Time
	order      []*flow
	store      *store.Store
	eng        *engine.Engine
	resources  resources
	observers  observers
	guards     *guards
	base       context.Context // of all steps
	suspectFor time.Duration

	places   places
	alarm    alarm
	suspect  suspectWatch
	clock    clockWatch // of the dispatcher
	built    time.Time
	owing    bool          // runs of RunOnStart, until the clock is right
	stopping chan struct{} // closed when Stop begins
	ended    chan struct{} // closed when everything is closed
	loops    sync.WaitGroup
	stopOnce sync.Once
	hurry    chan struct{} // closed when a Stop's patience has ended
	endErr   error         // set before ended is closed
	nextLook time.Time     // of the dispatcher at the lock
	suspects atomic.Bool   // some run is, or was, a suspect
	// backfills says that one may be open: the dispatcher looks, and finds out.
	backfills atomic.Bool

	mu      sync.Mutex // guards what follows
	live    map[*engine.Run]*flow
	byRun   map[int64]*engine.Run
	lost    map[*engine.Run]string // goroutines that do not come back, and where
	idle    chan struct{}          // closed when live is empty, while somebody waits for it
	waiters map[RunID][]chan *engine.Head
}

func newRunning(s *Scheduler) *RunningScheduler {
	r := &RunningScheduler{
		opts: s.opts, log: s.opts.Logger, now: s.now, built: s.built, order: s.flows, queries: queries{flows: s.byID},
		resources: resources{list: s.opts.Resources}, observers: observers{list: s.opts.Observers}, guards: s.guards,
		places:   places{free: s.opts.MaxConcurrent, used: map[string]int{}},
		alarm:    alarm{ring: make(chan struct{}, 1)},
		stopping: make(chan struct{}), ended: make(chan struct{}), hurry: make(chan struct{}),
		live: map[*engine.Run]*flow{}, byRun: map[int64]*engine.Run{}, lost: map[*engine.Run]string{},
		waiters: map[RunID][]chan *engine.Head{},
	}
	r.backfills.Store(true)
	r.base = context.WithValue(context.Background(), schedulerKey{}, r)
	return r
}

// wallClock is the time as it is stored: UTC, to the microsecond.
func wallClock() time.Time { return time.Now().Round(0).UTC().Truncate(time.Microsecond) }

// use connects the engine to the store.
func (r *RunningScheduler) use(st *store.Store) {
	r.store = st
	r.queries = queries{flows: r.flows, seats: &r.places, from: &st.Reader, at: func() time.Time { return r.now() }, named: r.reading}
	r.eng = &engine.Engine{
		Journal: st.Journal(), Now: r.now, Grace: r.opts.Grace, AbandonAfter: r.opts.AbandonAfter, ParkAfter: r.opts.ParkAfter,
		MaxData: r.opts.MaxData, MaxCrashes: r.opts.MaxCrashes, HandOver: r.handOver, Cleared: r.cleared,
		Recalled: r.recalled,
		Observe:  r.observing(),
	}
}

// run starts the loops, and ties the scheduler to Start's context.
func (r *RunningScheduler) run(ctx context.Context) {
	r.loops.Go(r.dispatch)
	r.loops.Go(r.prune)
	if len(r.guards.windows) > 0 {
		r.loops.Go(r.keepWindows)
	}
	go r.watchStore()
	go r.stopWith(ctx)
}

// flow returns the registered flow of an id.
func (r *RunningScheduler) flow(id string) (*flow, error) {
	if f := r.flows[id]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("flow %q: %w", id, ErrNotFound)
}

// HasRunningFlows reports whether any flow has the status running; false after Stop.
func (r *RunningScheduler) HasRunningFlows() bool {
	open, err := r.store.AnyOpen(context.Background())
	return err == nil && open
}

// reading wraps an error of a read; after the end it is ErrStopped or what
// ended the scheduler.
func (r *RunningScheduler) reading(what string, err error) error {
	select {
	case <-r.ended:
		return errorOr(r.endErr, ErrStopped)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}

// WaitRun waits until a run has ended and returns it, together with its
// *RunError if it ended other than completed. It returns ErrStuck at once for a
// stuck run, ErrStopped when the scheduler ends first.
func (r *RunningScheduler) WaitRun(ctx context.Context, id RunID) (RunInfo, error) {
	ch, live := r.register(id) // before reading, so that no end is missed
	defer r.unregister(id, ch)
	h := engine.Head{Run: int64(id)}
	if !live { // what executes here is told of; anything else is looked up
		var err error
		if h, err = r.store.Run(ctx, int64(id)); err != nil {
			return RunInfo{}, r.reading(fmt.Sprintf("run %d", id), err)
		}
	}
	if !settled(&h) {
		select {
		case end := <-ch:
			h = *end
		case <-ctx.Done():
			return runInfo(&h), context.Cause(ctx)
		case <-r.ended:
			return runInfo(&h), errorOr(r.endErr, ErrStopped)
		}
	}
	return r.result(ctx, &h)
}

// settled reports whether a run does not go on by itself.
func settled(h *engine.Head) bool { return h.Status.Ended() || h.Status == engine.Stuck }

// result returns a settled run with its error.
func (r *RunningScheduler) result(ctx context.Context, h *engine.Head) (RunInfo, error) {
	switch h.Status {
	case engine.Completed:
		return runInfo(h), nil
	case engine.Stuck:
		return runInfo(h), fmt.Errorf("run %d: %w: %s", h.Run, ErrStuck, h.StuckReason)
	}
	history, err := r.store.History(ctx, h.Run)
	if err != nil {
		return runInfo(h), r.reading(fmt.Sprintf("run %d", h.Run), err)
	}
	return runInfo(h), runError(h, history)
}

// register adds a waiter for a run, and reports whether the run executes in
// this process.
func (r *RunningScheduler) register(id RunID) (ch chan *engine.Head, live bool) {
	ch = make(chan *engine.Head, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiters[id] = append(r.waiters[id], ch)
	return ch, r.byRun[int64(id)] != nil
}

func (r *RunningScheduler) unregister(id RunID, ch chan *engine.Head) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.waiters[id]
	for i := range list {
		if list[i] == ch {
			r.waiters[id] = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(r.waiters[id]) == 0 {
		delete(r.waiters, id)
	}
}

// notify hands a settled run, which does not change any more, to whoever waits
// for it. The caller holds mu.
func (r *RunningScheduler) notify(h *engine.Head) {
	for _, ch := range r.waiters[RunID(h.Run)] {
		select {
		case ch <- h:
		default:
		}
	}
}

// Write runs fn in a transaction of the writer's, together with others: what it
// writes is durable when Write returns nil, and gone if it returns an error.
// fn may be called more than once; see Tx.
func (r *RunningScheduler) Write(ctx context.Context, fn func(tx Tx) error) error {
	return r.update(ctx, func(tx *store.Tx) error {
		return tx.User("Write", func() error { return lend(tx, r, fn) })
	})
}

// update is a request to the writer, refused when the scheduler stops.
func (r *RunningScheduler) update(ctx context.Context, fn func(*store.Tx) error) error {
	return r.store.Update(ctx, func(tx *store.Tx) error {
		if r.isStopping() {
			return ErrStopped
		}
		return fn(tx)
	})
}

// DB returns a read-only pool of four connections for the program's own
// queries. It is closed by Stop.
func (r *RunningScheduler) DB() *sql.DB { return r.store.DB() }

// Backup writes a consistent copy of the file to path while everything goes
// on. It returns fs.ErrExist if path exists.
func (r *RunningScheduler) Backup(ctx context.Context, path string) error {
	if err := r.store.Backup(ctx, path); err != nil {
		return r.reading("backup to "+path, err)
	}
	return nil
}

// Health returns the worst of the store's and the resources' health: Degraded
// while commits wait for space on the disk, Unhealthy after the store has failed.
func (r *RunningScheduler) Health(ctx context.Context) Health {
	own := Healthy
	switch {
	case r.store.Err() != nil || r.isStopping():
		return Unhealthy
	case r.store.Trouble() != nil:
		own = Degraded
	}
	for _, h := range r.resources.health(ctx) {
		own = max(own, h)
	}
	return own
}

// ResourceHealth asks every resource how well it works, and returns the answers
// by Resource.Key. One without a Health is Healthy; one that panics or does not
// answer within its Timeout is Unhealthy, and so are all once the scheduler stops.
func (r *RunningScheduler) ResourceHealth(ctx context.Context) map[string]Health {
	if !r.isStopping() {
		return r.resources.health(ctx)
	}
	report := map[string]Health{}
	for _, res := range r.opts.Resources {
		report[res.Key] = Unhealthy
	}
	return report
}

func (r *RunningScheduler) isStopping() bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}

// Wait waits until the scheduler has ended. It returns nil after a Stop, else
// what ended it: ErrStoreFailed or ErrFenced.
func (r *RunningScheduler) Wait() error {
	<-r.ended
	if errors.Is(r.endErr, ErrStoreFailed) || errors.Is(r.endErr, ErrFenced) {
		return r.endErr
	}
	return nil
}
