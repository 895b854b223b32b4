package segno_test

import (
	"context"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// midWindow starts a stream and lets it take two of the three items of its
// second window.
func midWindow(b *bed, src source, more ...func(*segno.Step[leg, cargo])) (*live, segno.Flow, segno.RunID) {
	b.t.Helper()
	step := segno.Step[leg, cargo]{Do: segno.Stream(src)}
	for _, change := range more {
		change(&step)
	}
	f := flowOf("f", oneStep(step))
	r := b.start(f)
	id := r.trigger("f", cargo{})
	time.Sleep(5500 * time.Millisecond)
	return r, f, id
}

// A cancel rolls back: it interrupts the window in flight, and flushes nothing.
func refStreamCancelPartial(t *testing.T) {
	b := newBed(t)
	var said tally
	r, _, id := midWindow(b, inCount(numbered(&said, 12, time.Second), 3))
	begin := time.Now()
	r.cancel(id)
	expectError(t, "the run", r.ended(id, segno.RunCancelled), context.Canceled)
	expect(t, "took", time.Since(begin), 0)
	expect(t, "windows", said.String(), "open [1 2 3]")
	expect(t, "cursors that are kept", b.memos(), "")
}

// Stop is what flushes the window as it is, and what is resumed.
func refStreamStopResume(t *testing.T) {
	b := newBed(t)
	var said tally
	_, f, id := midWindow(b, inCount(numbered(&said, 12, time.Second), 3))
	begin := time.Now()
	b.stop()
	expect(t, "took", time.Since(begin), 0)
	expect(t, "windows until the stop", said.take(), "open [1 2 3] [4 5]")
	expect(t, "kept", b.memos(), `{"n":2,"c":5}`)
	r := b.start(f)
	r.completed(id)
	expect(t, "windows after it: no gap, no duplicate", said.String(), "open:5 [6 7 8] [9 10 11] [12] close")
	expect(t, "data", string(r.info(id).Data), `{"n":12}`)
}

// A stop behind a flush has nothing to flush, and does not call Close.
func refStreamCancelEmpty(t *testing.T) {
	b := newBed(t)
	var said tally
	f := stream(inCount(numbered(&said, 6, time.Second), 3))
	id := b.start(f).trigger("f", cargo{})
	time.Sleep(3500 * time.Millisecond)
	b.stop()
	expect(t, "windows until the stop", said.take(), "open [1 2 3]")
	b.start(f).completed(id)
	expect(t, "windows after it", said.String(), "open:3 [4 5 6] close")
}

// The Flush of a stop may end the visit as any other.
func refStreamDrainStop(t *testing.T) {
	b := newBed(t)
	var said tally
	src := inCount(numbered(&said, 12, time.Second), 3)
	flush := src.Flush
	src.Flush = func(ctx context.Context, c *cargo, window []int) (leg, bool, error) {
		_, _, err := flush(ctx, c, window)
		return done, len(window) < 3, err
	}
	_, f, id := midWindow(b, src)
	b.stop()
	r := b.start(f)
	r.completed(id)
	expect(t, "windows", said.String(), "open [1 2 3] [4 5]")
}

// A Flush that fails while the scheduler stops has failed, and nothing is lost:
// its items come again.
func refStreamDrainError(t *testing.T) {
	b := newBed(t)
	var said tally
	src := inCount(numbered(&said, 6, time.Second), 3)
	flush, fails := src.Flush, true
	src.Flush = func(ctx context.Context, c *cargo, window []int) (leg, bool, error) {
		if len(window) < 3 && fails {
			return "", false, errTest
		}
		return flush(ctx, c, window)
	}
	_, f, id := midWindow(b, src, func(s *segno.Step[leg, cargo]) { s.Retry = segno.Fixed(2, time.Hour) })
	b.stop()
	fails = false
	expect(t, "windows until the stop", said.take(), "open [1 2 3]")
	expect(t, "kept", b.memos(), `{"n":1,"c":3}`)
	r := b.start(f)
	r.completed(id)
	expect(t, "windows after it", said.String(), "open:3 [4 5 6] close")
	expect(t, "log", r.log(id), "enter a, retry a, end done")
}

// Close is not called when a stream is cut short; that of an exhausted source
// fails the attempt.
func refStreamCloseError(t *testing.T) {
	var said tally
	src := numbered(&said, 1, 0)
	src.Close = func(context.Context, *cargo) (leg, error) { said.add("close"); return "", errTest }
	r := newBed(t).start(stream(src))
	expectText(t, "the run", r.failed(r.trigger("f", cargo{})), errTest.Error())
	expect(t, "windows", said.String(), "open [1] close")
}

func refStreamCloseErrorCommit(t *testing.T) {
	b := newBed(t)
	var said tally
	src := inCount(numbered(&said, 3, 0), 2)
	fails := true
	src.Close = func(context.Context, *cargo) (leg, error) {
		said.add("close")
		if fails {
			return "", errTest
		}
		return done, nil
	}
	f := flowOf("f", oneStep(segno.Step[leg, cargo]{Do: segno.Stream(src), Retry: segno.Fixed(2, time.Hour)}))
	id := b.start(f).trigger("f", cargo{})
	synctest.Wait()
	expect(t, "kept", b.memos(), `{"n":2,"c":3,"closing":true}`)
	b.kill()
	fails = false
	b.start(f).completed(id)
	expect(t, "windows: none comes again, nor is the source opened", said.String(), "open [1 2] [3] close close")
}

func refStreamOpenHangs(t *testing.T) {
	var said tally
	src := numbered(&said, 1, 0)
	src.Open = func(ctx context.Context, _ cargo, _ *int) (iter.Seq2[int, error], error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	r := newBed(t).start(stream(src))
	id := r.trigger("f", cargo{})
	time.Sleep(time.Minute)
	begin := time.Now()
	r.cancel(id)
	r.ended(id, segno.RunCancelled)
	expect(t, "took", time.Since(begin), 0)
	expect(t, "calls", said.String(), "")
}

func refStreamOpenPanics(t *testing.T) {
	b := newBed(t)
	var said tally
	b.opts.Resources = []segno.Resource{resource("r", &said)}
	src := numbered(&said, 1, 0)
	src.Open = func(context.Context, cargo, *int) (iter.Seq2[int, error], error) { panic("no source") }
	r := b.start(stream(src))
	err := r.failed(r.trigger("f", cargo{}))
	expectError(t, "the run", err, segno.ErrPanic)
	expectText(t, "the run", err, "no source")
	said.take()
	b.stop()
	expect(t, "teardown", contains(said.String(), "r"), true)
}

// A run that is timed out rolls back as one that is cancelled: nothing is flushed.
func refStreamTotalTimeout(t *testing.T) {
	b := newBed(t)
	var said tally
	w := one(segno.Stream(inCount(numbered(&said, 1_000_000, 7*time.Millisecond), 2)))
	w.Timeout = 30 * time.Millisecond
	r := b.start(flowOf("f", w))
	begin := time.Now()
	expectError(t, "the run", r.failed(r.trigger("f", cargo{})), context.DeadlineExceeded)
	expect(t, "took", time.Since(begin), 30*time.Millisecond)
	expect(t, "windows", said.String(), "open [1 2] [3 4]")
	expect(t, "streak: it counts as a failure", r.status("f").FailureStreak, 1)
}

func refStreamCancelEvents(t *testing.T) {
	b, w := watched(t)
	var said tally
	r, _, id := midWindow(b, inCount(numbered(&said, 12, time.Second), 3))
	r.cancel(id)
	r.ended(id, segno.RunCancelled)
	synctest.Wait()
	events := told(w)
	for _, want := range []string{"task_started:a", "task_failed:a", "run_cancelled"} {
		expect(t, want+" in "+events, strings.Count(" "+events+" ", " "+want), 1)
	}
	expect(t, "in that order", strings.Index(events, "task_failed") < strings.Index(events, "run_cancelled"), true)
}

// Close returns a state, so there is nothing of another kind to refuse.
func refStreamStrangeClose(t *testing.T) {
	var said tally
	src := numbered(&said, 1, 0)
	src.Close = func(context.Context, *cargo) (leg, error) { return "mars", nil }
	r := newBed(t).start(stream(src))
	expectError(t, "the run", r.failed(r.trigger("f", cargo{})), segno.ErrUnknownState)
}

func refStreamCommitFails(t *testing.T) {
	b := newBed(t)
	var said tally
	src := inCount(numbered(&said, 5, 0), 2)
	flush, fails := src.Flush, true
	src.Flush = func(ctx context.Context, c *cargo, window []int) (leg, bool, error) {
		if fails && window[0] == 3 {
			b.dead.Store(true)
		}
		return flush(ctx, c, window)
	}
	f := stream(src)
	id := b.start(f).trigger("f", cargo{})
	expectError(t, "Wait", b.run.Wait(), segno.ErrStoreFailed)
	b.run, fails = nil, false
	r := b.start(f)
	r.completed(id)
	expect(t, "windows", said.String(), "open [1 2] [3 4] open:2 [3 4] [5] close")
	expect(t, "data", string(r.info(id).Data), `{"n":5}`)
	expect(t, "failed attempts", strings.Contains(r.log(id), "retry"), false)
}
