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

var (
	_ = errors.Is
	_ = fmt.Sprint
	_ iter.Seq[int]
	_ = strings.Join
	_ = synctest.Wait
)
