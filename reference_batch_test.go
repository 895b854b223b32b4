package segno_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// referenceBatch are the acceptance scenarios about batches; each runs in a
// bubble of its own.
var referenceBatch = map[string]func(*testing.T){
	"B01_batch_order_seq":           func(t *testing.T) { refBatchOrder(t, 1, 150*milli) },
	"B02_batch_order_conc":          func(t *testing.T) { refBatchOrder(t, 4, 60*milli) },
	"B03_batch_slot_error":          refBatchSlotError,
	"B04_batch_item_retry":          refBatchItemRetry,
	"B05_batch_item_exhaust":        refBatchItemExhaust,
	"B06_batch_bound":               refBatchBound,
	"B07_batch_conc_zero":           refBatchConcurrencyZero,
	"B08_batch_load_error":          refBatchLoadError,
	"B09_batch_finish_retry":        refBatchFinishRetry,
	"B10_batch_finish_exhaust":      refBatchFinishExhaust,
	"B11_batch_empty":               refBatchEmpty,
	"B12_batch_cancel":              refBatchCancel,
	"B13_batch_item_panic_isolated": refBatchPanic,
	"B14_batch_resume":              refBatchResume,
	"B15_batch_resume_error_slots":  refBatchResumeErrors,
	"B16_batch_item_backoff_resume": refBatchBackoffResume,
}

// numbers loads 1 to n.
func numbers(n int) func(context.Context, cargo) ([]int, error) {
	return func(context.Context, cargo) ([]int, error) {
		items := make([]int, n)
		for i := range items {
			items[i] = i + 1
		}
		return items, nil
	}
}

// report is a finish that puts what has become of the items into the data.
func report(_ context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
	c.Text = settled(all)
	return done, nil
}

// tenfold is an item that takes no time.
func tenfold(_ context.Context, i int) (int, error) { return 10 * i, nil }

// per counts calls by item.
type per struct {
	mu    sync.Mutex
	calls map[int]int
}

func (p *per) call(i int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls == nil {
		p.calls = map[int]int{}
	}
	p.calls[i]++
	return p.calls[i]
}

func (p *per) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprint(p.calls)
}

// wantBatch runs a step and wants the batch in it to be reported like this.
func wantBatch(t *testing.T, want string, step segno.Step[leg, cargo]) {
	t.Helper()
	b, _ := watched(t)
	r := b.start(flowOf("f", oneStep(step)))
	expect(t, "settled", text(t, r.completed(r.trigger("f", cargo{}))), want)
}

// Earlier items take longer: 50, 40, 30, 20, 10 ms.
func refBatchOrder(t *testing.T, concurrency int, took time.Duration) {
	begin := time.Now()
	wantBatch(t, "10 20 30 40 50", segno.Step[leg, cargo]{Do: segno.Batch(numbers(5), func(ctx context.Context, i int) (int, error) {
		return 10 * i, sweepRest(ctx, time.Duration(60-10*i)*milli)
	}, report, segno.BatchOptions{Concurrency: concurrency})})
	if got := time.Since(begin); got > took {
		t.Errorf("took: got = %v, want at most %v", got, took)
	}
}

func refBatchSlotError(t *testing.T) {
	wantBatch(t, "10 ! 30", segno.Step[leg, cargo]{Do: segno.Batch(numbers(3), func(_ context.Context, i int) (int, error) {
		if i == 2 {
			return 0, errTest
		}
		return 10 * i, nil
	}, report)})
}

func refBatchItemRetry(t *testing.T) {
	var s tries
	wantBatch(t, "10", segno.Step[leg, cargo]{Do: segno.Batch(numbers(1), func(ctx context.Context, i int) (int, error) {
		if s.note(ctx) <= 2 {
			return 0, errTest
		}
		return 10 * i, nil
	}, report, segno.BatchOptions{Retry: segno.Fixed(3, time.Second)})})
	expect(t, "attempts", s.numbers(), "[1 2 3]")
}

func refBatchItemExhaust(t *testing.T) {
	var p per
	var err error
	wantBatch(t, "10 ! 30", segno.Step[leg, cargo]{Do: segno.Batch(numbers(3), func(_ context.Context, i int) (int, error) {
		if n := p.call(i); i == 2 {
			return 0, fmt.Errorf("%w, call %d", errTest, n)
		}
		return 10 * i, nil
	}, func(ctx context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
		err = all[1].Err
		return report(ctx, c, all)
	}, segno.BatchOptions{Retry: segno.Fixed(3, time.Second)})})
	expect(t, "calls", p.String(), "map[1:1 2:3 3:1]")
	expect(t, "the error in the slot", fmt.Sprint(err), "test: went wrong, call 3")
}

func refBatchBound(t *testing.T) {
	var p per
	var h highWater
	wantBatch(t, "10 20 30 40 50 60 ! 80 90 100 110 120", segno.Step[leg, cargo]{Do: segno.Batch(numbers(12), func(ctx context.Context, i int) (int, error) {
		defer h.in()()
		n := p.call(i)
		if err := sweepRest(ctx, 10*milli); err != nil {
			return 0, err
		}
		if i == 7 || i == 4 && n < 3 {
			return 0, errTest
		}
		return 10 * i, nil
	}, report, segno.BatchOptions{Concurrency: 3, Retry: segno.Fixed(3, milli)})})
	expect(t, "at the same time", h.most.Load(), 3)
	expect(t, "calls", p.String(), "map[1:1 2:1 3:1 4:3 5:1 6:1 7:3 8:1 9:1 10:1 11:1 12:1]")
}

func refBatchConcurrencyZero(t *testing.T) {
	var h highWater
	wantBatch(t, "10 20 30", segno.Step[leg, cargo]{Do: segno.Batch(numbers(3), func(ctx context.Context, i int) (int, error) {
		defer h.in()()
		return 10 * i, sweepRest(ctx, 10*milli)
	}, report, segno.BatchOptions{Concurrency: 0})})
	expect(t, "at the same time", h.most.Load(), 1)
}

func refBatchLoadError(t *testing.T) {
	b, w := watched(t)
	var said tally
	r := b.start(flowOf("f", one(segno.Batch(func(context.Context, cargo) ([]int, error) { return nil, errTest }, tenfold,
		func(context.Context, *cargo, []segno.Settled[int]) (leg, error) { said.add("finish"); return done, nil }))))
	e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
	expect(t, "Err", e.Err.Error(), errTest.Error())
	expect(t, "finish", said.len(), 0)
	expect(t, "items told of", unitEvents(w, segno.EventTaskStarted), 0)
	expect(t, "failures told", len(w.Kind(segno.EventTaskFailed)), 1)
}

// refBatchCycle is a batch of two items whose finish fails so often.
func refBatchCycle(said *tally, bad int, o ...segno.BatchOptions) segno.Step[leg, cargo] {
	return segno.Step[leg, cargo]{Retry: segno.Fixed(2, time.Second), Do: segno.Batch(func(ctx context.Context, c cargo) ([]int, error) {
		said.add("load")
		return numbers(2)(ctx, c)
	}, func(ctx context.Context, i int) (int, error) {
		said.add("%d", i)
		return tenfold(ctx, i)
	}, func(ctx context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
		said.add("finish")
		if segno.InfoFrom(ctx).Attempt <= bad {
			return "", errTest
		}
		return report(ctx, c, all)
	}, o...)}
}

func refBatchFinishRetry(t *testing.T) {
	var said tally
	wantBatch(t, "10 20", refBatchCycle(&said, 1))
	expect(t, "calls", said.String(), "load 1 2 finish load 1 2 finish")
}

func refBatchFinishExhaust(t *testing.T) {
	var said tally
	r := newBed(t).start(flowOf("f", oneStep(refBatchCycle(&said, 2))))
	e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
	expect(t, "Err", e.Err.Error(), errTest.Error())
	expect(t, "Attempt", e.Attempt, 2)
	expect(t, "calls", said.String(), "load 1 2 finish load 1 2 finish")
}

func refBatchEmpty(t *testing.T) {
	for _, load := range []func(context.Context, cargo) ([]int, error){
		numbers(0), func(context.Context, cargo) ([]int, error) { return nil, nil },
	} {
		r := newBed(t).start(flowOf("f", one(segno.Batch(load, tenfold, func(_ context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
			c.Text = fmt.Sprint(len(all))
			return done, nil
		}))))
		expect(t, "items", text(t, r.completed(r.trigger("f", cargo{}))), "0")
		_ = r.Stop(context.Background())
	}
}

func refBatchCancel(t *testing.T) {
	b, _ := watched(t)
	var said tally
	r := b.start(flowOf("f", one(segno.Batch(numbers(3), func(ctx context.Context, i int) (int, error) {
		said.add("%d", i)
		return i, sweepRest(ctx, time.Second)
	}, func(context.Context, *cargo, []segno.Settled[int]) (leg, error) { said.add("finish"); return done, nil }))))
	id := r.trigger("f", cargo{})
	time.Sleep(1500 * milli)
	r.cancel(id)
	r.ended(id, segno.RunCancelled)
	time.Sleep(time.Minute)
	expect(t, "calls", said.String(), "1 2")
}

func refBatchPanic(t *testing.T) {
	var err error
	wantBatch(t, "10 ! 30", segno.Step[leg, cargo]{Do: segno.Batch(numbers(3), func(_ context.Context, i int) (int, error) {
		if i == 2 {
			panic("odd")
		}
		return 10 * i, nil
	}, func(ctx context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
		err = all[1].Err
		return report(ctx, c, all)
	})})
	expectError(t, "the slot", err, segno.ErrPanic)
	expect(t, "the text has the value", contains(fmt.Sprint(err), "odd"), true)
}

func refBatchResume(t *testing.T) {
	const n, at, wide = 1000, 600, 8
	b := newBed(t)
	var p per
	var loads tally
	var once sync.Once
	reached := make(chan struct{})
	f := flowOf("f", one(segno.Batch(func(ctx context.Context, c cargo) ([]int, error) {
		loads.add("load")
		return numbers(n)(ctx, c)
	}, func(ctx context.Context, i int) (int, error) {
		if p.call(i); i == at {
			first := false
			once.Do(func() { first = true; close(reached) })
			if first {
				<-ctx.Done()
				return 0, ctx.Err()
			}
		}
		return 10 * i, nil
	}, func(_ context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
		c.N = len(all)
		for i, s := range all {
			if s.Err != nil || s.Skipped || s.Value != 10*(i+1) {
				return "", fmt.Errorf("item %d: got = %+v", i, s)
			}
		}
		return done, nil
	}, segno.BatchOptions{Concurrency: wide})))
	r := b.start(f)
	id := r.trigger("f", cargo{})
	<-reached
	b.kill()
	synctest.Wait()
	kept := map[string]bool{}
	for _, key := range b.rows("SELECT key FROM _segno_memo WHERE key LIKE 'segno.batch.1/%'") {
		kept[key] = true
	}
	if len(kept) < at-wide {
		t.Errorf("items settled at the kill: got = %d, want at least %d", len(kept), at-wide)
	}
	r = b.start(f)
	expect(t, "data", string(r.completed(id).Data), `{"n":1000}`)
	expect(t, "loads", loads.len(), 1)
	twice := 0
	for i, calls := range p.calls {
		if calls > 1 {
			twice++
		}
		if kept[fmt.Sprint("segno.batch.1/", i-1)] && calls != 1 {
			t.Errorf("calls of item %d, settled at the kill: got = %d, want 1", i, calls)
		}
	}
	if twice > wide {
		t.Errorf("items called twice: got = %d, want at most %d", twice, wide)
	}
}

func refBatchResumeErrors(t *testing.T) {
	b := newBed(t)
	var p per
	alive := false
	var errs [3]error
	f := flowOf("f", one(segno.Batch(numbers(4), func(ctx context.Context, i int) (int, error) {
		switch p.call(i); i {
		case 1:
			return 0, fmt.Errorf("%w: slow", context.DeadlineExceeded)
		case 2:
			panic("odd")
		case 3:
			return 0, errTest
		}
		if !alive {
			return 0, sweepRest(ctx, time.Hour)
		}
		return 10 * i, nil
	}, func(ctx context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
		errs = [3]error{all[0].Err, all[1].Err, all[2].Err}
		return report(ctx, c, all)
	})))
	r := b.start(f)
	id := r.trigger("f", cargo{})
	synctest.Wait()
	b.kill()
	alive = true
	r = b.start(f)
	expect(t, "settled", text(t, r.completed(id)), "! ! ! 40")
	expect(t, "calls", p.String(), "map[1:1 2:1 3:1 4:2]")
	expectError(t, "a timeout", errs[0], context.DeadlineExceeded)
	expectError(t, "a panic", errs[1], segno.ErrPanic)
	expect(t, "the text of one", errs[0].Error(), "context deadline exceeded: slow")
	expect(t, "the text of another", errs[2].Error(), errTest.Error())
}

func refBatchBackoffResume(t *testing.T) {
	b := newBed(t)
	var s tries
	f := flowOf("f", one(segno.Batch(numbers(1), func(ctx context.Context, i int) (int, error) {
		if s.note(ctx) == 1 {
			return 0, errTest
		}
		return 10 * i, nil
	}, report, segno.BatchOptions{Retry: plain(3, 10*time.Second)})))
	r := b.start(f)
	id := r.trigger("f", cargo{})
	time.Sleep(4 * time.Second)
	r = b.restart(f)
	expect(t, "settled", text(t, r.completed(id)), "10")
	expect(t, "waits", s.gaps(), "10s")
	expect(t, "attempts", s.numbers(), "[1 2]")
}
