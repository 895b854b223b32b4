package segno_test

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// referenceStream are the acceptance scenarios about Stream.
var referenceStream = map[string]func(*testing.T){
	"W01_stream_windows":             refTimed(refStreamWindows),
	"W02_stream_exact":               refTimed(refStreamExact),
	"W03_stream_empty":               refTimed(refStreamEmpty),
	"W04_stream_count_zero":          refTimed(refStreamCountZero),
	"W05_stream_duration":            refTimed(refStreamDuration),
	"W06_stream_idle":                refTimed(refStreamIdle),
	"W07_stream_duration_zero":       refTimed(refStreamDurationZero),
	"W08_stream_stop":                refTimed(refStreamStop),
	"W09_stream_failfast":            refTimed(refStreamFailFast),
	"W10_stream_skip":                refTimed(refStreamSkip),
	"W11_stream_budget":              refTimed(refStreamBudget),
	"W12_stream_budget_burst":        refTimed(refStreamBudgetBurst),
	"W13_stream_budget_zero":         refTimed(refStreamBudgetZero),
	"W14_stream_item_timeout":        refTimed(refStreamItemTimeout),
	"W15_stream_no_outer_retry":      refTimed(refStreamRetry),
	"W16_stream_crash_resume":        refTimed(refStreamResume),
	"W17_stream_cancel_partial":      refTimed(refStreamCancelPartial),
	"W18_stream_cancel_resume":       refTimed(refStreamStopResume),
	"W19_stream_cancel_empty":        refTimed(refStreamCancelEmpty),
	"W20_stream_drain_stop_ignored":  refTimed(refStreamDrainStop),
	"W21_stream_drain_flush_error":   refTimed(refStreamDrainError),
	"W22_stream_close_error":         refTimed(refStreamCloseError),
	"W23_stream_close_error_commit":  refTimed(refStreamCloseErrorCommit),
	"W24_stream_open_hang_cancel":    refTimed(refStreamOpenHangs),
	"W25_stream_open_panic":          refTimed(refStreamOpenPanics),
	"W26_stream_total_timeout":       refTimed(refStreamTotalTimeout),
	"W27_stream_cancel_events":       refTimed(refStreamCancelEvents),
	"W28_stream_split_close":         refTimed(refStreamStrangeClose),
	"W29_stream_append_fail":         refTimed(refStreamCommitFails),
	"W30_stream_kill9":               refStreamKill,
	"W31_stream_tx_flush":            refStreamTxKill,
	"W32_stream_error_count_restart": refTimed(refStreamErrorCount),
	"W33_stream_bounded_rows":        refTimed(refStreamBoundedRows),
	"W34_stream_poison_tail":         refTimed(refStreamPoisonTail),
	"W35_stream_after_saga_cancel":   refStreamAfterSaga,
}

// windows runs a source to its end and returns what it said.
func windows(t *testing.T, said *tally, src source) string {
	t.Helper()
	r := newBed(t).start(stream(src))
	r.completed(r.trigger("f", cargo{}))
	return said.take()
}

// inCount is a source with windows of n.
func inCount(src source, n int) source { src.Count = n; return src }

func refStreamWindows(t *testing.T) {
	var said, cursors tally
	b := newBed(t)
	src := inCount(numbered(&said, 5, time.Second), 2)
	r := b.start(stream(src))
	id := r.trigger("f", cargo{})
	for range 3 {
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r.info(id).Status == segno.RunRunning {
			cursors.add("%s", b.memos())
		}
	}
	r.completed(id)
	expect(t, "windows", said.String(), "open [1 2] [3 4] [5] close")
	expect(t, "cursors", cursors.String(), `{"n":1,"c":2} {"n":2,"c":4}`)
	expect(t, "cursors that are kept", b.memos(), "")
}

func refStreamExact(t *testing.T) {
	var said tally
	expect(t, "windows", windows(t, &said, inCount(numbered(&said, 4, 0), 2)), "open [1 2] [3 4] close")
}

func refStreamEmpty(t *testing.T) {
	var said tally
	b := newBed(t)
	src := inCount(numbered(&said, 0, 0), 2)
	src.Close = func(context.Context, *cargo) (leg, error) {
		said.add("close %s", b.memos())
		return done, nil
	}
	r := b.start(stream(src))
	r.completed(r.trigger("f", cargo{}))
	expect(t, "windows, and what is kept of it", said.String(), `open close {"n":0,"closing":true}`)
}

func refStreamCountZero(t *testing.T) {
	var said tally
	expect(t, "windows", windows(t, &said, numbered(&said, 3, 0)), "open [1] [2] [3] close")
}

// every is a source whose windows end by time.
func every(src source, d time.Duration) source { src.Every = d; return src }

func refStreamDuration(t *testing.T) {
	var said tally
	expect(t, "windows", windows(t, &said, every(numbered(&said, 4, 30*time.Millisecond), 50*time.Millisecond)), "open [1] [2 3] [4] close")
}

func refStreamIdle(t *testing.T) {
	var said tally
	expect(t, "windows", windows(t, &said, every(numbered(&said, 2, 120*time.Millisecond), 50*time.Millisecond)), "open [1] [2] close")
}

// Without a length of either kind a window is an item; a negative one is refused.
func refStreamDurationZero(t *testing.T) {
	var said tally
	expect(t, "windows", windows(t, &said, every(numbered(&said, 2, 0), 0)), "open [1] [2] close")
	expect(t, "windows", windows(t, &said, every(numbered(&said, 2, time.Second), time.Nanosecond)), "open [1] [2] close")
	r := newBed(t).start(stream(every(numbered(&said, 2, 0), -1)))
	expectText(t, "the run", r.failed(r.trigger("f", cargo{})), "Every", "bad configuration")
	expect(t, "calls", said.String(), "")
}

func refStreamStop(t *testing.T) {
	for name, c := range map[string]struct {
		n    int
		at   string
		src  func(*tally) source
		want string
	}{
		"a full window":         {src: func(said *tally) source { return inCount(numbered(said, 9, 0), 2) }, want: "open [1 2]"},
		"a window by time":      {src: func(said *tally) source { return every(numbered(said, 9, 30*time.Millisecond), 100*time.Millisecond) }, want: "open [1 2 3]"},
		"the last, partly full": {src: func(said *tally) source { return inCount(numbered(said, 2, 0), 3) }, want: "open [1 2]"},
	} {
		var said tally
		src := c.src(&said)
		flush := src.Flush
		src.Flush = func(ctx context.Context, c *cargo, window []int) (leg, bool, error) {
			_, _, err := flush(ctx, c, window)
			return legB, true, err
		}
		w := one(segno.Stream(src))
		w.Steps[legB] = segno.Step[leg, cargo]{Do: to(done)}
		b := newBed(t)
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		r.completed(id)
		expect(t, name+": windows", said.String(), c.want)
		expect(t, name+": log", r.log(id), "enter a, enter b, end done")
		b.stop()
	}
}

func refStreamFailFast(t *testing.T) {
	var said tally
	r := newBed(t).start(stream(inCount(failingAt(numbered(&said, 3, 0), map[int]int{2: 9}), 3)))
	expectText(t, "the run", r.failed(r.trigger("f", cargo{})), "went wrong with 2")
	expect(t, "windows", said.String(), "open")
}

func onError(src source, p segno.ItemPolicy) source { src.OnError = p; return src }

func refStreamSkip(t *testing.T) {
	b := newBed(t)
	var said tally
	src := onError(failingAt(numbered(&said, 3, time.Second), map[int]int{2: 9}), segno.SkipItem)
	r := b.start(stream(src))
	id := r.trigger("f", cargo{})
	time.Sleep(2500 * time.Millisecond)
	expect(t, "kept when item 2 was skipped", b.memos(), `{"n":1,"c":1}`)
	r.completed(id)
	expect(t, "windows", said.String(), "open [1] [3] close")
}

func refStreamBudget(t *testing.T) {
	var said tally
	src := onError(inCount(failingAt(numbered(&said, 10, 0), map[int]int{2: 9, 5: 9, 6: 9}), 3), segno.Tolerate(2))
	expect(t, "windows", windows(t, &said, src), "open [1 3 4] [7 8 9] [10] close")
}

func refStreamBudgetBurst(t *testing.T) {
	var said tally
	r := newBed(t).start(stream(onError(inCount(failingAt(numbered(&said, 10, 0), map[int]int{5: 9, 6: 9, 7: 9}), 3), segno.Tolerate(2))))
	expectText(t, "the run", r.failed(r.trigger("f", cargo{})), "went wrong with 7")
	expect(t, "windows", said.String(), "open [1 2 3]")
}

func refStreamBudgetZero(t *testing.T) {
	var said tally
	r := newBed(t).start(stream(onError(failingAt(numbered(&said, 3, 0), map[int]int{2: 1}), segno.Tolerate(0))))
	expectText(t, "the run", r.failed(r.trigger("f", cargo{})), "went wrong with 2")
	expect(t, "windows", said.String(), "open [1]")
}

func refStreamItemTimeout(t *testing.T) {
	for _, policy := range []segno.ItemPolicy{segno.FailFast, segno.SkipItem} {
		b := newBed(t)
		var said tally
		src := onError(numbered(&said, 3, 0), policy)
		src.Item = func(ctx context.Context, i int) (int, int, error) {
			if i == 2 {
				<-ctx.Done()
				return 0, 0, ctx.Err()
			}
			return i, i, nil
		}
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: segno.Stream(src), Timeout: 50 * time.Millisecond})))
		begin := time.Now()
		id := r.trigger("f", cargo{})
		if policy == segno.SkipItem {
			r.completed(id)
			expect(t, "windows", said.String(), "open [1] [3] close")
		} else {
			expectError(t, "the run", r.failed(id), context.DeadlineExceeded)
			expect(t, "windows", said.String(), "open [1]")
		}
		expect(t, "took", time.Since(begin), 50*time.Millisecond)
		b.stop()
	}
}

// Step.Retry repeats a failed window, with the source opened at the cursor.
func refStreamRetry(t *testing.T) {
	b := newBed(t)
	var said tally
	r := b.start(stream(failingAt(numbered(&said, 3, 0), map[int]int{2: 1})))
	r.failed(r.trigger("f", cargo{}))
	expect(t, "without a Retry", said.take(), "open [1]")
	b.stop()
	r = b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
		Do: segno.Stream(failingAt(numbered(&said, 3, 0), map[int]int{2: 1})), Retry: segno.Fixed(2, time.Second),
	})))
	r.completed(r.trigger("f", cargo{}))
	expect(t, "with a Retry", said.String(), "open [1] open:1 [2] [3] close")
}

func refStreamResume(t *testing.T) {
	b := newBed(t)
	var said, items tally
	fails := true
	src := inCount(numbered(&said, 8, 0), 2)
	src.Item = func(_ context.Context, i int) (int, int, error) { items.add("%d", i); return i, i, nil }
	flush := src.Flush
	src.Flush = func(ctx context.Context, c *cargo, window []int) (leg, bool, error) {
		if fails && window[0] == 5 {
			return "", false, errTest
		}
		return flush(ctx, c, window)
	}
	f := flowOf("f", oneStep(segno.Step[leg, cargo]{Do: segno.Stream(src), Retry: segno.Fixed(2, time.Hour)}))
	r := b.start(f)
	id := r.trigger("f", cargo{})
	synctest.Wait()
	b.kill()
	fails = false
	r = b.start(f)
	r.completed(id)
	expect(t, "windows", said.String(), "open [1 2] [3 4] open:4 [5 6] [7 8] close")
	expect(t, "items", items.String(), "1 2 3 4 5 6 5 6 7 8")
	expect(t, "data", string(r.info(id).Data), `{"n":8}`)
}

// Two failed items in a row are all that is tolerated, over a window and a
// restart.
func refStreamErrorCount(t *testing.T) {
	b := newBed(t)
	var said tally
	src := onError(every(numbered(&said, 9, time.Second), 100*time.Millisecond), segno.Tolerate(2))
	src.Item = func(_ context.Context, i int) (int, int, error) {
		if i > 1 {
			return 0, i, fmt.Errorf("%w with %d", errTest, i) // and it is behind the cursor
		}
		return i, i, nil
	}
	f := stream(src)
	id := b.start(f).trigger("f", cargo{})
	time.Sleep(3550 * time.Millisecond)
	expect(t, "kept", b.memos(), `{"n":1,"c":3,"failed":2}`)
	b.kill()
	r := b.start(f)
	expectText(t, "the run", r.failed(id), "went wrong with 4")
	expect(t, "windows", said.String(), "open [1] open:3")
}

// As many windows as one likes leave one small row.
func refStreamBoundedRows(t *testing.T) {
	b := newBed(t)
	var said tally
	r := b.start(stream(numbered(&said, 200, time.Second)))
	id := r.trigger("f", cargo{})
	time.Sleep(150500 * time.Millisecond)
	expect(t, "kept", b.memos(), `{"n":150,"c":150}`)
	expect(t, "log", r.log(id), "enter a")
	r.completed(id)
}

// An item that is passed over with its cursor is not read again.
func refStreamPoisonTail(t *testing.T) {
	b := newBed(t)
	var said, items tally
	src := onError(every(numbered(&said, 3, time.Second), 2500*time.Millisecond), segno.SkipItem)
	src.Open = func(ctx context.Context, _ cargo, from *int) (iter.Seq2[int, error], error) {
		at := 0
		if from != nil {
			at = *from
		}
		return func(yield func(int, error) bool) {
			for i := at + 1; i <= 3; i++ {
				if !yield(i, nil) {
					return
				}
			}
			<-ctx.Done() // more may come
		}, nil
	}
	src.Item = func(_ context.Context, i int) (int, int, error) {
		items.add("%d", i)
		if i == 3 {
			return 0, i, errTest
		}
		return i, i, nil
	}
	f := stream(src)
	id := b.start(f).trigger("f", cargo{})
	for range 3 {
		time.Sleep(3 * time.Second)
		b.kill()
		b.start(f)
	}
	time.Sleep(3 * time.Second)
	expect(t, "items", items.String(), "1 2 3")
	expect(t, "windows", said.String(), "[1 2]")
	r := &live{b.run, t}
	r.cancel(id)
	r.ended(id, segno.RunCancelled)
}

// A stream behind a step that can be undone is cancelled at whatever commit:
// the step is undone, and nothing of the stream's is left.
func refStreamAfterSaga(t *testing.T) {
	t.Parallel()
	segnotest.CrashSweep(t, segnotest.Scenario{
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a")},
				sB: {Do: segno.Stream(segno.Source[sweepAt, sweepData, int, int, int]{
					Open: sweepNumbers(fx, 1_000, time.Second), Count: 2,
					Item:  func(_ context.Context, i int) (int, int, error) { return i, i, nil },
					Flush: func(context.Context, *sweepData, []int) (sweepAt, bool, error) { return "", false, nil },
					Close: func(context.Context, *sweepData) (sweepAt, error) { return sDone, nil },
				})},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepCancel(5500*time.Millisecond, segno.Trigger{Key: "1"}),
		Check: sweepAll(sweepRun("f", "1", "cancelled", `{"Log":["a"]}`), sweepDid("undo a of [a]")),
	})
}
