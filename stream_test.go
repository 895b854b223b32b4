package segno_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
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
var (
	_ = errors.Is
	_ = fmt.Sprint
	_ iter.Seq[int]
	_ = strings.Join
	_ = synctest.Wait
)
