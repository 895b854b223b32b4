package segno

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// Stop suspends the scheduler: nothing new is dispatched, every unit in flight
// ends and is committed, and the next Start goes on from there. Nothing is
// rolled back. When ctx ends first, the contexts of the steps still in flight
// are cancelled, and they have Options.Grace to return; the error names those
// that did not. Stop may be called again, and returns the same.
func (r *RunningScheduler) Stop(ctx context.Context) error {
	r.stopOnce.Do(func() {
		close(r.stopping)
		go func() {
			r.loops.Wait()
			r.finish(r.suspendAll())
		}()
	})
	select {
	case <-r.ended:
	case <-ctx.Done():
		r.mu.Lock()
		select {
		case <-r.hurry:
		default:
			close(r.hurry)
		}
		r.mu.Unlock()
		<-r.ended
	}
	return r.endErr
}

// stopWith ends the scheduler when Start's context does.
func (r *RunningScheduler) stopWith(ctx context.Context) {
	select {
	case <-r.ended:
	case <-ctx.Done():
		ctx, cancel := context.WithTimeout(context.Background(), r.opts.StopTimeout)
		defer cancel()
		_ = r.Stop(ctx)
	}
}

// suspendAll lets every run come to the end of its unit. A commit that cannot
// be made at present holds it up no longer than Stop's patience.
func (r *RunningScheduler) suspendAll() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-r.hurry:
			cancel()
		case <-ctx.Done():
		}
	}()
	_ = r.store.Update(ctx, (*store.Tx).MarkClean)
	for _, run := range r.runs() {
		run.Suspend()
	}
	select {
	case <-r.quiet():
		return nil
	case <-r.hurry:
		return r.abort(engine.ErrStopping)
	case <-r.store.Failed:
		return r.abort(r.store.Err())
	}
}

// watchStore is the fail-stop: when the file cannot be trusted any more, all
// work ends.
func (r *RunningScheduler) watchStore() {
	select {
	case <-r.store.Failed:
	case <-r.ended:
		return
	}
	r.stopOnce.Do(func() {
		r.log.Error("segno: the store failed, everything stops", "error", r.store.Err())
		close(r.stopping)
		go func() { // a Stop that comes meanwhile must not wait for the Once
			r.loops.Wait()
			r.finish(r.abort(r.store.Err()))
		}()
	})
}

// abort ends the context of every unit in flight and waits out the grace. The
// error names the steps that did not return.
func (r *RunningScheduler) abort(cause error) error {
	for _, run := range r.runs() {
		run.Abort(cause)
	}
	t := time.NewTimer(r.opts.Grace)
	defer t.Stop()
	select {
	case <-r.quiet():
	case <-t.C:
	}
	return r.abandoned()
}

// abandoned names the goroutines that are still in their steps.
func (r *RunningScheduler) abandoned() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for run, f := range r.live {
		names = append(names, fmt.Sprintf("run %d of %s", run.ID(), f.ID))
	}
	for _, name := range r.lost {
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return fmt.Errorf("segno: stopped without waiting for steps that do not return: %s", strings.Join(names, ", "))
}

// finish closes the store, takes the resources down and gives the lock back,
// unless goroutines are still out: then the lock goes when they do.
func (r *RunningScheduler) finish(err error) {
	used := r.keepLast()
	closed := r.store.Close()
	r.guards.leave(r) // behind Close: until then one may wait for its commit
	down := r.resources.tearDown(context.Background())
	var released error
	if r.outstanding() == 0 {
		released = r.store.Release()
	} else {
		go r.releaseLater()
	}
	r.endErr = errors.Join(r.store.Err(), err, used, closed, down, released)
	close(r.ended)
}

// releaseLater gives the lock back when the last goroutine has come back.
func (r *RunningScheduler) releaseLater() {
	for r.outstanding() > 0 {
		<-r.quiet()
	}
	if err := r.store.Release(); err != nil {
		r.log.Error("segno: releasing the lock", "error", err)
	}
}

// runs returns the runs in hand.
func (r *RunningScheduler) runs() []*engine.Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	runs := make([]*engine.Run, 0, len(r.live))
	for run := range r.live {
		runs = append(runs, run)
	}
	return runs
}

// outstanding counts the goroutines that are in runs.
func (r *RunningScheduler) outstanding() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.live) + len(r.lost)
}

// quiet returns a channel that is closed when no goroutine is in a run.
func (r *RunningScheduler) quiet() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.idle == nil {
		r.idle = make(chan struct{})
		r.checkIdle()
	}
	return r.idle
}

// checkIdle closes the idle channel if its time has come. The caller holds mu.
func (r *RunningScheduler) checkIdle() {
	if r.idle == nil || len(r.live)+len(r.lost) > 0 {
		return
	}
	select {
	case <-r.idle:
	default:
		close(r.idle)
	}
}
