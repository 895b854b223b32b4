package segno_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/internal/crashpoint"
	"github.com/segnodev/segno/segnotest"
)

// A liveFlow is one flow in a file of its own, with the scheduler that runs it
// at present: it dies at a commit, and is started again.
type liveFlow struct {
	path  string
	flow  segno.Flow
	run   *segno.RunningScheduler
	ahead atomic.Int64 // of the wall clock to the bubble's time

	mu    sync.Mutex // guards what follows
	dead  bool
	dieIn int  // commits until it dies; 0: it lives
	after bool // it dies behind that commit, not before it

	steps liveSteps
}

var errDead = fmt.Errorf("%w: the process is dead", segno.ErrStoreFailed)

// now is the time by the wall clock.
func (l *liveFlow) now() time.Time { return time.Now().Add(time.Duration(l.ahead.Load())).UTC() }

// commit is the crashpoint.Gate of each start.
func (l *liveFlow) commit(commit func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errDead
	}
	if l.dieIn--; l.dieIn != 0 {
		return commit()
	}
	l.dead = true
	if l.after {
		_ = commit() // one that fails was to fail all the same
	}
	return errDead
}

// doom lets it die at the nth commit from now, 0 for never.
func (l *liveFlow) doom(n int, after bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dieIn, l.after = n, after
}

func (l *liveFlow) isDead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

// start starts the flow, which may die of it.
func (l *liveFlow) start() error {
	l.mu.Lock()
	l.dead = false
	l.mu.Unlock()
	s := segno.New(l.path, segno.Options{SmallWAL: true})
	s.SetClock(func() time.Duration { return time.Duration(l.ahead.Load()) })
	if err := s.Add(l.flow); err != nil {
		return err
	}
	run, err := s.Start(crashpoint.With(context.Background(), l.commit))
	l.run = run
	return err
}

// revive starts a flow that has died again, until it lives.
func (l *liveFlow) revive() error {
	for l.isDead() {
		if l.run != nil {
			if err := l.run.Wait(); !errors.Is(err, segno.ErrStoreFailed) {
				return fmt.Errorf("of what it died: got = %v, want %v", err, segno.ErrStoreFailed)
			}
		}
		l.steps.restarted()
		if err := checkFile(l.path); err != nil {
			return fmt.Errorf("after a kill: %w", err)
		}
		if err := l.start(); err != nil && !l.isDead() {
			return err
		}
		synctest.Wait()
	}
	return nil
}

// kill ends the scheduler as SIGKILL would.
func (l *liveFlow) kill() {
	l.doom(1, false)
	_ = l.run.Write(context.Background(), func(segno.Tx) error { return nil })
}

// stop ends it as a program does that ends.
func (l *liveFlow) stop() error {
	if l.run == nil {
		return nil
	}
	l.doom(0, false)
	err := l.run.Stop(context.Background())
	l.run = nil
	l.steps.restarted()
	return err
}

// A quietT keeps what Check finds.
type quietT struct {
	testing.TB
	fault error
}

func (q *quietT) Helper()                           {}
func (q *quietT) Errorf(format string, args ...any) { q.fault = fmt.Errorf(format, args...) }

// checkFile is segnotest.Check as an error, so that a sequence can be shrunk.
func checkFile(path string) error {
	q := &quietT{}
	segnotest.Check(q, path)
	return q.fault
}

// liveSteps is what the flow's step does, and what was seen of it.
type liveSteps struct {
	mu       sync.Mutex
	fails    bool
	takes    time.Duration
	open     int
	most     int           // that were executing at a time
	calls    map[int64]int // by run, since the last restart
	repeated int64         // a run that was called twice in one life
}

// do takes its time, and fails if it is to.
func (s *liveSteps) do(ctx context.Context, _ *cargo) (leg, error) {
	run := int64(segno.InfoFrom(ctx).Run)
	s.mu.Lock()
	s.open++
	s.most = max(s.most, s.open)
	if s.calls[run]++; s.calls[run] > 1 {
		s.repeated = run
	}
	takes, fails := s.takes, s.fails
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
	}()
	wait := time.NewTimer(takes)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if fails {
		return "", errTest
	}
	return done, nil
}

// set says what the next runs do.
func (s *liveSteps) set(fails bool, takes time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails, s.takes = fails, takes
}

// restarted lets the runs that were interrupted be called again.
func (s *liveSteps) restarted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = map[int64]int{}
}

// check checks that no run was called twice in one life, and none beside another
// one where they must not overlap.
func (s *liveSteps) check(overlap segno.Overlap) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.repeated != 0:
		return fmt.Errorf("run %d was called twice", s.repeated)
	case s.most > 2 || s.most > 1 && (overlap == segno.Skip || overlap == segno.Replace):
		return fmt.Errorf("%d runs executed at a time", s.most)
	}
	return nil
}
