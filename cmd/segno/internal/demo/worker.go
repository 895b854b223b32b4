package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/segnodev/segno"
)

// A job is what the supervisor tells a worker, as one line of JSON.
type job struct {
	DB         string
	Input      string
	Chunk      int           // lines
	ChunkTime  time.Duration // what a chunk is slowed down to
	Orders     int
	OrderEvery time.Duration
	Kill       *kill // what the worker comes back from
}

// A kill is the end of one worker, and what the supervisor then read in the file.
type kill struct {
	Number int
	Moment string
	PID    int
	At     time.Time
	Probe  segno.FlowInfo
}

// ready is what a worker prints when it is back at work; resetProbe and stop
// are what it is told.
const (
	ready      = "ready"
	resetProbe = "reset"
	stop       = "stop"
)

// stopTime is how long a worker may take to stop.
const stopTime = 5 * time.Second

// worker is the process that gets killed: a program like any that uses segno.
type worker struct {
	job      job
	returned chan struct{} // closed when it has written down what it found
}

// Work is the whole life of a worker. It ends when it is told so, or when the
// supervisor is gone.
func Work(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	in := bufio.NewReader(stdin)
	w := &worker{returned: make(chan struct{})}
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &w.job)
	}
	if err != nil {
		return fmt.Errorf("%s is started by the demo only: %w", WorkerCommand, err)
	}
	running, err := w.start(ctx, slog.New(slog.NewTextHandler(stderr, nil)))
	if err != nil {
		return err
	}
	if err = w.begin(ctx, running); err == nil {
		fmt.Fprintln(stdout, ready)
		err = obey(ctx, running, commands(in))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	return errors.Join(err, running.Stop(ctx))
}

// start registers the four flows and opens the file.
func (w *worker) start(ctx context.Context, log *slog.Logger) (*segno.RunningScheduler, error) {
	s := segno.New(w.job.DB, segno.Options{Logger: log, Schema: schema})
	err := errors.Join(
		s.Manual("ingest", w.ingest()),
		s.Every("probe", w.probe(), probeEvery),
		s.SetBackoff("probe", probeBackoff),
		s.Add(segno.Flow{ID: "orders", Workflow: w.orders(), Overlap: segno.Allow(4), Backoff: segno.BackoffPolicy{Initial: -1}}),
		s.Cron("report", report(), reportCron),
	)
	if err != nil {
		return nil, err
	}
	return s.Start(ctx)
}

// begin writes down what it finds after a kill, then asks for the work. The
// keys make that safe to repeat: a run that is there already is not started again.
func (w *worker) begin(ctx context.Context, running *segno.RunningScheduler) error {
	defer close(w.returned)
	if w.job.Kill != nil {
		if err := w.comeBack(ctx, running); err != nil {
			return err
		}
	}
	now := time.Now()
	return running.Write(ctx, func(tx segno.Tx) error {
		_, err := tx.Trigger("ingest", segno.Trigger{Key: "input", Input: Ingest{Chunk: w.job.Chunk}})
		for n := 1; n <= w.job.Orders && err == nil; n++ {
			err = place(tx, orderOf(n), now.Add(time.Duration(n)*w.job.OrderEvery))
		}
		return err
	})
}

// place writes an order and starts its run, in one commit.
func place(tx segno.Tx, o Order, at time.Time) error {
	run, err := tx.Trigger("orders", segno.Trigger{Key: fmt.Sprintf("order-%d", o.ID), Input: o, At: at})
	if err != nil {
		return err
	}
	_, err = tx.Exec("INSERT INTO demo_order (id, customer, cents, run) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", o.ID, o.Customer, o.Cents, run)
	return err
}

// comeBack records the streak and the window as the scheduler has them now,
// beside what the supervisor read in the file after the kill.
func (w *worker) comeBack(ctx context.Context, running *segno.RunningScheduler) error {
	now, err := running.Status(ctx, "probe")
	if err != nil {
		return err
	}
	back := time.Now()
	return running.Write(ctx, func(tx segno.Tx) error {
		k, was := w.job.Kill, w.job.Kill.Probe
		_, err := tx.Exec(`INSERT INTO demo_kill (kill, moment, pid, killed, back, streak_before, streak_after, window_before, window_after, status_before, status_after)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, k.Number, k.Moment, k.PID, instant(k.At), instant(back),
			was.FailureStreak, now.FailureStreak, instant(was.NextEligible), instant(now.NextEligible), string(was.Status), string(now.Status))
		return err
	})
}

// instant is how the demo's tables keep a time: RFC 3339 UTC, NULL for none.
func instant(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z")
}

// commands returns what the supervisor says, line by line; it is closed when
// the supervisor is gone.
func commands(in io.Reader) <-chan string {
	ch := make(chan string)
	go func() {
		defer close(ch)
		for scan := bufio.NewScanner(in); scan.Scan(); {
			ch <- strings.TrimSpace(scan.Text())
		}
	}()
	return ch
}

// obey does what it is told until that is to stop.
func obey(ctx context.Context, running *segno.RunningScheduler, said <-chan string) error {
	ended := make(chan error, 1)
	go func() { ended <- running.Wait() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case cmd, open := <-said:
			if !open || cmd == stop {
				return nil
			}
			if cmd == resetProbe {
				if err := running.ResetFlow(ctx, "probe"); err != nil {
					return err
				}
			}
		}
	}
}

// pause is the work that the demo only pretends to do.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
