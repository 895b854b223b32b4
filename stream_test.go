package segno_test

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// faultyOnce are functions that go wrong the first time that they are called.
func faultyOnce(fault func()) func() {
	called := false
	return func() {
		if !called {
			called = true
			fault()
		}
	}
}

// A window that fails is read again, however it has failed.
func TestAFailedWindowIsReadAgainFromItsCursor(t *testing.T) {
	panics := faultyOnce(func() { panic("half way") })
	cases := map[string]func(src source) source{
		"Flush returns an error": func(src source) source {
			flush, first := src.Flush, true
			src.Flush = func(ctx context.Context, c *cargo, w []int) (leg, bool, error) {
				if w[0] == 3 && first {
					first = false
					return "", false, errTest
				}
				return flush(ctx, c, w)
			}
			return src
		},
		"Flush panics": func(src source) source {
			flush, fault := src.Flush, faultyOnce(func() { panic("half way") })
			src.Flush = func(ctx context.Context, c *cargo, w []int) (leg, bool, error) {
				if w[0] == 3 {
					fault()
				}
				return flush(ctx, c, w)
			}
			return src
		},
		"Item panics": func(src source) source {
			src.Item = func(_ context.Context, i int) (int, int, error) {
				if i == 4 {
					panics()
				}
				return i, i, nil
			}
			return src
		},
		"OnCommit fails": func(src source) source {
			flush, first := src.Flush, true
			src.Flush = func(ctx context.Context, c *cargo, w []int) (leg, bool, error) {
				if w[0] == 3 && first {
					first = false
					return "", false, segno.OnCommit(ctx, func(segno.Tx) error { return errTest })
				}
				return flush(ctx, c, w)
			}
			return src
		},
		"Flush ends its goroutine": func(src source) source {
			flush, fault := src.Flush, faultyOnce(runtime.Goexit)
			src.Flush = func(ctx context.Context, c *cargo, w []int) (leg, bool, error) {
				if w[0] == 3 {
					fault()
				}
				return flush(ctx, c, w)
			}
			return src
		},
	}
	for name, with := range cases {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var said tally
				r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
					Do:    segno.Stream(with(inCount(numbered(&said, 5, 0), 2))),
					Retry: segno.Retry{Attempts: 2, Initial: 10 * time.Millisecond, Panics: true},
				})))
				id := r.trigger("f", cargo{})
				r.completed(id)
				expect(t, "windows", said.String(), "open [1 2] open:2 [3 4] [5] close")
				expect(t, "data", string(r.info(id).Data), `{"n":5}`)
				expect(t, "log", r.log(id), "enter a, retry a, end done")
			})
		})
	}
}

// stuckIn is a source of one item that waits for the end of its context in one
// of its functions.
func stuckIn(said *tally, where string) source {
	wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	src := numbered(said, 1, 0)
	switch where {
	case "Open":
		src.Open = func(ctx context.Context, _ cargo, _ *int) (iter.Seq2[int, error], error) { return nil, wait(ctx) }
	case "Item":
		src.Item = func(ctx context.Context, _ int) (int, int, error) { return 0, 0, wait(ctx) }
	case "Flush":
		src.Flush = func(ctx context.Context, _ *cargo, _ []int) (leg, bool, error) { return "", false, wait(ctx) }
	case "Close":
		src.Close = func(ctx context.Context, _ *cargo) (leg, error) { return "", wait(ctx) }
	}
	return src
}

func TestATimeoutBoundsEachFunctionOfASource(t *testing.T) {
	for _, where := range []string{"Open", "Item", "Flush", "Close"} {
		t.Run(where, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var said tally
				r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: segno.Stream(stuckIn(&said, where)), Timeout: time.Second})))
				begin := time.Now()
				expectError(t, "the run", r.failed(r.trigger("f", cargo{})), context.DeadlineExceeded)
				expect(t, "took", time.Since(begin), time.Second)
			})
		})
	}
}

// Between the items nobody's time is measured.
func TestATimeoutDoesNotBoundTheSource(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: segno.Stream(inCount(numbered(&said, 4, time.Minute), 2)), Timeout: time.Second,
		})))
		r.completed(r.trigger("f", cargo{}))
		expect(t, "windows", said.String(), "open [1 2] [3 4] close")
	})
}

// An item that takes no notice of its timeout is no item's failure any more.
func TestAnItemThatIgnoresItsTimeoutIsInterruptedWithItsWindow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		src := onError(numbered(&said, 3, 0), segno.SkipItem)
		src.Item = func(_ context.Context, i int) (int, int, error) {
			if i == 2 {
				time.Sleep(30 * time.Second)
			}
			return i, i, nil
		}
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: segno.Stream(src), Timeout: time.Second})))
		begin := time.Now()
		expectError(t, "the run", r.failed(r.trigger("f", cargo{})), context.DeadlineExceeded)
		expect(t, "took", time.Since(begin), 30*time.Second)
		expect(t, "windows", said.String(), "open [1]")
	})
}

// yielding is a source whose sequence ends in one of these ways behind its first
// two items.
func yielding(said *tally, end func(yield func(int, error) bool)) source {
	src := inCount(numbered(said, 0, 0), 9)
	src.Open = func(context.Context, cargo, *int) (iter.Seq2[int, error], error) {
		return func(yield func(int, error) bool) {
			if yield(1, nil) && yield(2, nil) {
				end(yield)
			}
		}, nil
	}
	return src
}

func TestWhatASourceYieldsAsAnErrorIsThatOfAnItem(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		broken := func(yield func(int, error) bool) { _ = yield(0, errTest) && yield(4, nil) }
		src := yielding(&said, broken)
		r := newBed(t).start(stream(src), flowOf("skips", one(segno.Stream(onError(src, segno.SkipItem)))),
			flowOf("tolerates", one(segno.Stream(onError(src, segno.Tolerate(1))))))
		expectText(t, "FailFast", r.failed(r.trigger("f", cargo{})), errTest.Error())
		expect(t, "windows", said.take(), "")
		for _, flow := range []string{"skips", "tolerates"} {
			r.completed(r.trigger(flow, cargo{}))
			expect(t, "windows of the one that "+flow, said.take(), "[1 2 4] close")
		}
	})
}

func TestASourceThatBreaksFailsTheAttempt(t *testing.T) {
	for name, end := range map[string]func(func(int, error) bool){
		"panic":  func(func(int, error) bool) { panic("half read") },
		"goexit": func(func(int, error) bool) { runtime.Goexit() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var said tally
				r := newBed(t).start(stream(onError(yielding(&said, end), segno.SkipItem)))
				expectError(t, "the run", r.failed(r.trigger("f", cargo{})), segno.ErrPanic)
				expect(t, "windows", said.String(), "")
			})
		})
	}
}

func TestPanicsOfItemsArePassedOverWhereErrorsAre(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		src := onError(inCount(numbered(&said, 5, 0), 2), segno.Tolerate(1))
		src.Item = func(_ context.Context, i int) (int, int, error) {
			if i == 2 || i == 4 {
				panic(i)
			}
			return i, i, nil
		}
		expect(t, "windows", windows(t, &said, src), "open [1 3] [5] close")
	})
}

func TestAWindowEndsByCountOrTimeWhateverComesFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		src := every(inCount(numbered(&said, 0, 0), 3), time.Minute)
		src.Open = func(ctx context.Context, _ cargo, from *int) (iter.Seq2[int, error], error) {
			return func(yield func(int, error) bool) {
				for i, wait := range []time.Duration{0, 10, 10, 10, 70, 30, 29} { // the first window: at once, 10, 20
					if sweepRest(ctx, wait*time.Second) != nil || !yield(i, nil) {
						return
					}
				}
			}, nil
		}
		expect(t, "windows", windows(t, &said, src), "[0 1 2] [3] [4 5] [6] close")
	})
}

// Each window is a unit: its data and its functions are there once it is
// flushed, and it has a key of its own.
func TestAWindowIsACommitOfItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		var said, keys tally
		src := inCount(numbered(&said, 5, time.Second), 2)
		flush, fails := src.Flush, true
		src.Flush = func(ctx context.Context, c *cargo, w []int) (leg, bool, error) {
			keys.add("%s", segno.InfoFrom(ctx).Key)
			if err := tell(ctx, fmt.Sprint(w)); err != nil {
				return "", false, err
			}
			if w[0] == 3 && fails {
				fails = false
				return "", false, errTest
			}
			return flush(ctx, c, w)
		}
		f := flowOf("f", oneStep(segno.Step[leg, cargo]{Do: segno.Stream(src), Retry: segno.Fixed(2, time.Hour)}))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(2500 * time.Millisecond)
		expect(t, "data in the middle", string(r.info(id).Data), `{"n":2}`)
		expect(t, "rows in the middle", r.told(), "[1 2]")
		time.Sleep(2500 * time.Millisecond)
		expect(t, "rows after the second window failed", r.told(), "[1 2]")
		r = b.restart(f)
		r.completed(id)
		expect(t, "rows", r.told(), "[1 2] [3 4] [5]")
		expect(t, "data", string(r.info(id).Data), `{"n":5}`)
		all := strings.Fields(keys.String())
		expect(t, "flushes", len(all), 4)
		expect(t, "the key of a window that comes again", all[1], all[2])
		for i, suffix := range []string{"/1/a/1", "/1/a/2", "/1/a/2", "/1/a/3"} {
			expect(t, all[i]+" ends in "+suffix, strings.HasSuffix(all[i], suffix), true)
		}
	})
}

// A step with an Undo is not interrupted by a cancel: the window in flight ends
// as it is, and then the run rolls back.
func TestACancelLetsTheWindowOfAStepWithAnUndoEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		var said, undone tally
		src := inCount(numbered(&said, 12, time.Second), 3)
		flush := src.Flush
		src.Flush = func(ctx context.Context, c *cargo, w []int) (leg, bool, error) {
			if err := tell(ctx, fmt.Sprint(w)); err != nil {
				return "", false, err
			}
			return flush(ctx, c, w)
		}
		w := saga(1, &undone, segno.Stream(src))
		change(w, "s2", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(context.Context, cargo) error { undone.add("stream"); return nil }
		})
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		time.Sleep(5500 * time.Millisecond)
		begin := time.Now()
		r.cancel(id)
		r.ended(id, segno.RunCancelled)
		expect(t, "took", time.Since(begin), 0)
		expect(t, "windows", said.String(), "open [1 2 3] [4 5]")
		expect(t, "rows", r.told(), "[1 2 3] [4 5]")
		expect(t, "undone: the stream's visit has not finished", undone.String(), "s1:1")
		expect(t, "data", string(r.info(id).Data), `{"n":6}`)
	})
}

func TestAnEndlessSourceStopsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		src := every(numbered(&said, 0, 0), time.Minute)
		src.Open = func(ctx context.Context, _ cargo, _ *int) (iter.Seq2[int, error], error) {
			said.add("open")
			return func(func(int, error) bool) { <-ctx.Done(); said.add("closed") }, nil
		}
		b.start(stream(src)).trigger("f", cargo{})
		for range 3 {
			time.Sleep(90 * time.Second)
			begin := time.Now()
			b.stop()
			expect(t, "took", time.Since(begin), 0)
			expect(t, "said", said.take(), "open closed")
			b.start(stream(src))
		}
	})
}

// A reader that takes no notice of the end is waited for, as long as the grace.
func TestASourceThatDoesNotEndIsLeftBehind(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		src := inCount(numbered(&said, 0, 0), 1)
		src.Open = func(context.Context, cargo, *int) (iter.Seq2[int, error], error) {
			return func(yield func(int, error) bool) {
				yield(1, nil)
				time.Sleep(time.Hour)
			}, nil
		}
		src.Flush = func(context.Context, *cargo, []int) (leg, bool, error) { return done, true, nil }
		r := newBed(t).start(stream(src))
		begin := time.Now()
		r.completed(r.trigger("f", cargo{}))
		expect(t, "took no longer than the grace", time.Since(begin) <= 5*time.Second, true)
		time.Sleep(time.Hour)
	})
}

func TestASourceThatIsNotUsableFailsItsRunAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		b := newBed(t)
		steps := map[string]do{
			"nothing":    segno.Stream(source{}),
			"Count":      segno.Stream(source{Count: -1}),
			"OnError":    segno.Stream(onError(numbered(nil, 1, 0), -7)),
			"the cursor": segno.Stream(segno.Source[leg, cargo, func(), int, int]{}),
		}
		var flows []segno.Flow
		for name, step := range steps {
			flows = append(flows, flowOf(name, oneStep(segno.Step[leg, cargo]{Retry: segno.Fixed(3, time.Second), Do: func(ctx context.Context, c *cargo) (leg, error) {
				s.note(ctx)
				return step(ctx, c)
			}})))
		}
		r := b.start(flows...)
		for name := range steps {
			expectText(t, name, r.failed(r.trigger(name, cargo{})), "segno:")
		}
		expect(t, "attempts", s.calls(), len(steps))
	})
}

func TestTheSequencesContextBelongsToTheVisit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		src := inCount(numbered(&said, 0, 0), 1)
		src.Open = func(ctx context.Context, c cargo, _ *int) (iter.Seq2[int, error], error) {
			return func(yield func(int, error) bool) {
				for i := range 3 {
					said.add("%d:%s:%s", c.N, segno.InfoFrom(ctx).State, fmt.Sprint(ctx.Err()))
					if !yield(i, nil) {
						return
					}
				}
			}, nil
		}
		src.Flush = func(context.Context, *cargo, []int) (leg, bool, error) { return "", false, nil }
		r := newBed(t).start(stream(src))
		r.completed(r.trigger("f", cargo{N: 7}))
		expect(t, "said", said.String(), "7:a:<nil> 7:a:<nil> 7:a:<nil> close")
	})
}

func TestAStreamThatIsVisitedAgainBeginsAnew(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		src := inCount(numbered(&said, 3, 0), 2)
		src.Close = func(_ context.Context, c *cargo) (leg, error) {
			if c.N < 6 {
				return legA, nil
			}
			return done, nil
		}
		r := newBed(t).start(stream(src))
		r.completed(r.trigger("f", cargo{}))
		expect(t, "windows", said.String(), "open [1 2] [3] open [1 2] [3]")
	})
}
