package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/segnodev/segno"
)

const (
	tick     = 30 * time.Millisecond
	orders   = 24
	chunks   = 120 // that the input is cut into, unless it is very long
	maxChunk = 500 // lines
)

// supervisor runs the show. It never writes to the file.
type supervisor struct {
	cfg    Config
	job    job
	child  *child
	reader *segno.Reader
	*progress
	script outage
	kills  []moment // to come
	since  time.Time
	done   int // kills
}

// Run shows it all: the work, the kills and the proof. It returns ErrProof if
// the file does not show what it should.
func Run(ctx context.Context, cfg Config) error {
	facts, err := readAll(cfg.Input)
	if err != nil {
		return fmt.Errorf("%w; give a file of lines", err)
	}
	if err := cfg.prepare(); err != nil {
		return err
	}
	s := newSupervisor(cfg, len(facts))
	s.open()
	switch err := s.work(ctx); {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("interrupted; the file is kept: %s", s.cfg.DB)
	case err != nil:
		return fmt.Errorf("%w; the file is kept: %s", err, s.cfg.DB)
	}
	s.say("done", "the worker has stopped by itself, after %s", many(s.done, "kill"))
	return s.prove(ctx)
}

func newSupervisor(cfg Config, lines int) *supervisor {
	chunk := min(max((lines+chunks-1)/chunks, 1), maxChunk)
	now := time.Now()
	s := &supervisor{
		cfg: cfg, kills: moments(cfg.Kills), since: now,
		job: job{
			DB: cfg.DB, Input: cfg.Input, Chunk: chunk, Orders: orders, OrderEvery: cfg.Stretch / (orders + 2),
			ChunkTime: min(cfg.Stretch/time.Duration(lines/chunk+1), 200*time.Millisecond),
		},
		progress: &progress{out: cfg.Out, began: now, lines: lines},
	}
	s.script = outage{db: cfg.DB, since: now, calm: cfg.Stretch / 15, say: s.say, reset: func() error { return s.child.say(resetProbe) }}
	return s
}

// open says what is going to happen.
func (s *supervisor) open() {
	fmt.Fprintf(s.cfg.Out, `segno demo: one file, four flows, and a worker process that is killed with SIGKILL: %s.

  ingest   counts every line of %s (%s), %d at a time, with a cursor in the run's data
  probe    asks an upstream every %v; failures make a streak, a backoff window and, at %d, a trip
  orders   reserve, charge, ship: every third has no address, and is rolled back
  report   a cron flow, every second: %s

  file     %s (kept)

`, many(s.cfg.Kills, "kill"), sourceName(s.cfg.Input), thousands(s.lines), s.job.Chunk, probeEvery, probeBackoff.StreakLimit, reportCron, s.cfg.DB)
}

// work is the time until everything is done and the worker has stopped.
func (s *supervisor) work(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 4*s.cfg.Stretch+time.Minute+time.Duration(s.cfg.Kills)*5*time.Second,
		errors.New("the work takes too long"))
	defer cancel()
	if err := os.WriteFile(upstream(s.cfg.DB), nil, 0o600); err != nil {
		return err
	}
	defer func() { _ = os.Remove(upstream(s.cfg.DB)) }()
	if err := s.start(ctx, nil); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.child.end()) }()
	s.say("worker", "process %d has the file", s.child.pid())
	if s.reader, err = segno.OpenReader(ctx, s.cfg.DB); err != nil {
		return err
	}
	defer func() { _ = s.reader.Close() }()
	if err := s.watch(ctx); err != nil {
		return err
	}
	return s.child.stop()
}

// start starts a worker, after a kill or for the first time.
func (s *supervisor) start(ctx context.Context, k *kill) error {
	s.job.Kill = k
	c, err := spawn(ctx, s.job)
	if err == nil {
		s.child = c
	}
	return err
}

// watch looks at the file again and again, and does what it is time for.
func (s *supervisor) watch(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		v, err := look(ctx, s.reader)
		if err != nil {
			return err
		}
		s.tell(&v)
		if err := s.act(ctx, &v); err != nil || s.finished(&v) {
			return err
		}
		select {
		case <-ticker.C:
		case <-s.child.exited:
			return fmt.Errorf("the worker ended by itself (%w); its log is %s", errorOr(s.child.err, errors.New("exit status 0")), workerLog(s.cfg.DB))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// finished reports whether there is nothing more to wait for.
func (s *supervisor) finished(v *view) bool {
	return len(s.kills) == 0 && s.script.over() && v.ingested && v.open == 0
}

// act goes on with the outage, or kills if the moment has come.
func (s *supervisor) act(ctx context.Context, v *view) error {
	if len(s.kills) == 0 {
		return s.script.step(v)
	}
	next, waited := s.kills[0], v.at.Sub(s.since)
	switch {
	case next.gone != nil && next.gone(v):
		s.kills[0] = atRandom()
	case next.come(v, waited):
		return s.kill(ctx, next.name)
	case next.gone == nil && next.name != anyMoment && s.script.over():
		s.script.again()
	}
	return s.script.step(v)
}

// kill ends the worker at once and starts another one.
func (s *supervisor) kill(ctx context.Context, at string) error {
	k := &kill{Number: s.done + 1, Moment: at, PID: s.child.pid(), At: time.Now()}
	if err := s.child.kill(); err != nil {
		return err
	}
	v, err := look(ctx, s.reader)
	if err != nil {
		return err
	}
	k.Probe = v.probe
	s.say(fmt.Sprintf("KILL %d", k.Number), "kill -9 %d, %s", k.PID, at)
	s.say("file", "%s lines counted, runs in flight: %d; probe: %s", thousands(v.lines), v.inFlight, windowText(&v.probe))
	if err := s.start(ctx, k); err != nil {
		return err
	}
	return s.tookOver(ctx, k)
}

// tookOver says what the new worker has found, and whether the kill will do.
func (s *supervisor) tookOver(ctx context.Context, k *kill) error {
	now := time.Now()
	f := segno.FlowInfo{}
	var window string
	row := s.reader.DB().QueryRowContext(ctx, "SELECT status_after, streak_after, coalesce(window_after, '') FROM demo_kill WHERE kill = ?", k.Number)
	if err := row.Scan(&f.Status, &f.FailureStreak, &window); err != nil {
		return err
	}
	f.NextEligible = clock(window)
	s.say("worker", "process %d is back %d ms after the kill; probe: %s", s.child.pid(), now.Sub(k.At).Milliseconds(), windowText(&f))
	s.done, s.kills, s.since = s.done+1, s.kills[1:], now
	if k.Moment == inWindow.name && !now.Before(f.NextEligible) {
		s.kills = append(s.kills, inWindow) // the restart took longer than the window
	}
	return nil
}
