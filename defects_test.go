package segno_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// TestDefects shows that segno does not share the defects and surprises of the
// reference, or has another behaviour on purpose. docs/defects.md lists
// all of them, and names those that other tests show.
func TestDefects(t *testing.T) {
	all := map[string]func(*testing.T){}
	for _, part := range []func() map[string]func(*testing.T){
		defectsOfModels, defectsOfStreams, defectsOfTheScheduler, defectsOfWorkflows, defectsOfSplits, defectsOfSagas,
	} {
		maps.Copy(all, part())
	}
	for name, test := range all {
		t.Run(name, test)
	}
}

func defectsOfModels() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"D1_cursor_of_an_old_visit/killed in the state itself": inRow(func(t *testing.T, b *bed) { defectOldCursor(t, b, 3, "0 1 2 0 0 1 2") }),
		"D1_cursor_of_an_old_visit/killed in between":          inRow(func(t *testing.T, b *bed) { defectOldCursor(t, b, 2, "0 1 2 0 1 2") }),
		"D3_poll_does_not_spin/ready in a nanosecond": inRow(func(t *testing.T, b *bed) {
			defectBusyPoll(t, b, time.Nanosecond, nil, 1000)
		}),
		"D3_poll_does_not_spin/errors that are tolerated": inRow(func(t *testing.T, b *bed) {
			defectBusyPoll(t, b, 0, errTest, 1)
		}),
		"D9_extreme_retry": inRow(func(t *testing.T, b *bed) {
			var s tries
			r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
				Do: s.failing(9), Retry: segno.Retry{Attempts: math.MaxInt, Initial: math.MaxInt64, Multiplier: 1e300, MaxDelay: math.MaxInt64},
			})))
			id := r.trigger("f", cargo{})
			time.Sleep(time.Hour)
			synctest.Wait()
			expect(t, "calls in an hour", s.calls(), 1)
			expect(t, "the retry is in the future", r.info(id).Due.After(time.Now()), true)
			r.cancel(id)
			r.ended(id, segno.RunCancelled)
		}),
		"D15_cursor_that_cannot_be_encoded": inRow(func(t *testing.T, b *bed) {
			var s tries
			undone := 0
			r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
				Do: segno.Stepped(func(ctx context.Context, _ *cargo, at *float64) (leg, bool, error) {
					s.note(ctx)
					*at = math.Inf(1)
					return done, true, nil
				}),
				Retry: segno.Fixed(5, time.Second), Undo: func(context.Context, cargo) error { undone++; return nil },
			})))
			e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "calls", s.calls(), 1)
			expect(t, "undos", undone, 0)
			expect(t, "the text names the cursor", contains(e.Error(), "encoding the cursor"), true)
		}),
		"D18_trip_between_attempts_names_the_cause": inRow(func(t *testing.T, b *bed) {
			var s tries
			r := b.start(flowOf("f", guardedStep(&segno.Breaker{Failures: 2}, &s, segno.Fixed(5, time.Second))))
			e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expectError(t, "the run", e, segno.ErrCircuitOpen)
			expect(t, "calls", s.calls(), 2)
			expect(t, "the text names what opened it", contains(e.Error(), "opened by: "+errTest.Error()), true)
		}),
		"D20_teardown_panics": inRow(func(t *testing.T, b *bed) {
			var said tally
			bad := resource("bad", &said)
			bad.Teardown = func(context.Context, any) error { panic("down") }
			b.opts.Resources = []segno.Resource{resource("a", &said), bad}
			err := b.start(flowOf("f", one(to(done)))).Stop(context.Background())
			b.run, b.opts.Resources = nil, nil
			expectError(t, "Stop", err, segno.ErrPanic)
			expect(t, "said", said.String(), "+a +bad -a(value of a)")
			b.start(flowOf("f", one(to(done)))) // the lock is free
		}),
	}
}

// defectOldCursor goes a, b, a, done; a is a Stepped of three calls. The process
// dies in the given visit.
func defectOldCursor(t *testing.T, b *bed, visit int, want string) {
	t.Helper()
	var from tally
	alive := false
	dies := func(ctx context.Context) bool {
		if alive || segno.InfoFrom(ctx).Visit != visit {
			return false
		}
		<-ctx.Done()
		return true
	}
	f := flowOf("f", route{Initial: legA, Steps: legs{
		legA: {Do: segno.Stepped(func(ctx context.Context, _ *cargo, at *int) (leg, bool, error) {
			from.add("%d", *at)
			if dies(ctx) {
				return "", false, ctx.Err()
			}
			*at++
			return legB, *at < 3, nil
		})},
		legB: {Do: func(ctx context.Context, c *cargo) (leg, error) {
			if dies(ctx) {
				return "", ctx.Err()
			}
			if c.N++; c.N == 1 {
				return legA, nil
			}
			return done, nil
		}},
		done: {Final: true},
	}})
	id := b.start(f).trigger("f", cargo{})
	synctest.Wait()
	b.kill()
	alive = true
	b.start(f).completed(id)
	expect(t, "cursors", from.String(), want)
}

// defectBusyPoll polls with a body that never blocks, and cancels it.
func defectBusyPoll(t *testing.T, b *bed, again time.Duration, err error, perSecond int) {
	t.Helper()
	var calls tally
	r := b.start(flowOf("f", one(segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) {
		calls.add("x")
		return done, again, err
	}, segno.PollOptions{Tolerate: math.MaxInt}))))
	id := r.trigger("f", cargo{})
	time.Sleep(2*time.Second - time.Microsecond)
	synctest.Wait()
	expect(t, "calls in two seconds", calls.len(), 2*perSecond)
	r.cancel(id)
	begin := time.Now()
	r.ended(id, segno.RunCancelled)
	expect(t, "the cancel took", time.Since(begin), 0)
}

type defectSource = segno.Source[leg, cargo, int, int, int]

// defectNumbers is a stream of 1 to n in windows of two, which it says and adds up.
func defectNumbers(n int, said *tally) defectSource {
	return defectSource{
		Open: func(_ context.Context, _ cargo, from *int) (iter.Seq2[int, error], error) {
			i := 0
			if from != nil {
				i = *from
			}
			return func(yield func(int, error) bool) {
				for i++; i <= n && yield(i, nil); i++ {
				}
			}, nil
		},
		Item: func(_ context.Context, i int) (int, int, error) { return i, i, nil },
		Flush: func(_ context.Context, c *cargo, window []int) (leg, bool, error) {
			said.add("%d-%d", window[0], window[len(window)-1])
			c.N += len(window)
			return "", false, nil
		},
		Close: func(context.Context, *cargo) (leg, error) { said.add("close"); return done, nil },
		Count: 2,
	}
}

func defectsOfStreams() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"D2_stream_open_panics": inRow(func(t *testing.T, b *bed) {
			var said tally
			src := defectNumbers(4, &said)
			src.Open = func(context.Context, cargo, *int) (iter.Seq2[int, error], error) { panic("no source") }
			watch := new(segnotest.Recorder)
			b.opts.Observers = []segno.Observer{watch}
			r := b.start(flowOf("f", saga(1, &said, segno.Stream(src))))
			expectError(t, "the run", r.ended(r.trigger("f", cargo{}), segno.RunFailed), segno.ErrPanic)
			expect(t, "undone", said.String(), "s1:1")
			expect(t, "the failure is told", contains(told(watch), "task_failed:s2"), true)
		}),
		"D11_close_fails_behind_a_window/error": inRow(func(t *testing.T, b *bed) {
			var said tally
			src := defectNumbers(4, &said)
			src.Close = func(context.Context, *cargo) (leg, error) {
				if said.add("close") == 3 {
					return "", errTest
				}
				return done, nil
			}
			r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: segno.Stream(src), Retry: segno.Fixed(2, time.Second)})))
			expect(t, "data", string(r.completed(r.trigger("f", cargo{})).Data), `{"n":4}`)
			expect(t, "said", said.String(), "1-2 3-4 close close")
		}),
		"D11_close_fails_behind_a_window/kill": inRow(func(t *testing.T, b *bed) {
			var said tally
			alive := false
			src := defectNumbers(4, &said)
			src.Close = func(ctx context.Context, c *cargo) (leg, error) {
				said.add("close")
				return unless(&alive, done)(ctx, c)
			}
			f := flowOf("f", one(segno.Stream(src)))
			id := b.start(f).trigger("f", cargo{})
			synctest.Wait()
			b.kill()
			alive = true
			expect(t, "data", string(b.start(f).completed(id).Data), `{"n":4}`)
			expect(t, "said", said.String(), "1-2 3-4 close close")
		}),
		"D13_stop_keeps_a_stream_behind_a_saga_step": inRow(func(t *testing.T, b *bed) {
			var said tally
			alive := false
			src := defectNumbers(4, &said)
			src.Item = func(ctx context.Context, i int) (int, int, error) {
				if i == 3 && !alive {
					<-ctx.Done()
					return 0, 0, ctx.Err()
				}
				return i, i, nil
			}
			f := flowOf("f", saga(1, &said, segno.Stream(src)))
			id := b.start(f).trigger("f", cargo{})
			synctest.Wait()
			b.hurry()
			alive = true
			expect(t, "data", string(b.start(f).completed(id).Data), `{"n":5}`)
			expect(t, "said, and nothing undone", said.String(), "1-2 3-4 close")
		}),
		"D14_endless_stream_keeps_one_cursor": inRow(func(t *testing.T, b *bed) {
			var said tally
			src := defectNumbers(1000, &said)
			src.Item = func(ctx context.Context, i int) (int, int, error) {
				if i == 601 {
					<-ctx.Done()
				}
				return i, i, ctx.Err()
			}
			r := b.start(flowOf("f", one(segno.Stream(src))))
			id := r.trigger("f", cargo{})
			synctest.Wait()
			expect(t, "windows", said.len(), 300)
			expect(t, "lines of history", len(r.entries(id)), 1)
			expect(t, "memos", fmt.Sprint(b.rows("SELECT count(*) FROM _segno_memo")), "[1]")
		}),
		"D19_stream_honours_the_breaker": inRow(func(t *testing.T, b *bed) {
			var said tally
			br := &segno.Breaker{Failures: 1}
			_ = br.Do(context.Background(), func(context.Context) error { return errTest })
			r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: segno.Stream(defectNumbers(2, &said)), Breaker: br})))
			expectError(t, "the run", r.ended(r.trigger("f", cargo{}), segno.RunFailed), segno.ErrCircuitOpen)
			expect(t, "said", said.String(), "")
		}),
		"D19_stream_honours_timeout_and_retry": inRow(func(t *testing.T, b *bed) {
			var said tally
			src := defectNumbers(4, &said)
			src.Item = func(ctx context.Context, i int) (int, int, error) {
				if i == 3 && segno.InfoFrom(ctx).Attempt == 1 {
					<-ctx.Done()
					return 0, 0, ctx.Err()
				}
				return i, i, nil
			}
			step := segno.Step[leg, cargo]{Do: segno.Stream(src), Timeout: time.Second, Retry: plain(2, 10*time.Second)}
			once := step
			once.Retry = segno.Retry{}
			r := b.start(flowOf("f", oneStep(step)), flowOf("once", oneStep(once)))
			begin := time.Now()
			r.completed(r.trigger("f", cargo{}))
			expect(t, "took", time.Since(begin), 11*time.Second)
			expect(t, "said", said.String(), "1-2 3-4 close")
			expectError(t, "without a retry", r.ended(r.trigger("once", cargo{}), segno.RunFailed), context.DeadlineExceeded)
		}),
	}
}
