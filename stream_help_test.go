package segno_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// source is what the streams of these tests read: numbers, of which each is the
// cursor behind itself.
type source = segno.Source[leg, cargo, int, int, int]

// numbered is a source of the numbers behind the cursor up to n, one every d. It
// says what is asked of it, and counts the items of its windows in N.
func numbered(said *tally, n int, d time.Duration) source {
	return source{
		Open: func(ctx context.Context, _ cargo, from *int) (iter.Seq2[int, error], error) {
			at := 0
			if from == nil {
				said.add("open")
			} else {
				at = *from
				said.add("open:%d", at)
			}
			return func(yield func(int, error) bool) {
				for i := at + 1; i <= n; i++ {
					if d > 0 && sweepRest(ctx, d) != nil || !yield(i, nil) {
						return
					}
				}
			}, nil
		},
		Item: func(_ context.Context, i int) (int, int, error) { return i, i, nil },
		Flush: func(_ context.Context, c *cargo, window []int) (leg, bool, error) {
			said.add("%v", window)
			c.N += len(window)
			return "", false, nil
		},
		Close: func(context.Context, *cargo) (leg, error) {
			said.add("close")
			return done, nil
		},
	}
}

// failingAt makes Item fail on some of its items: the nth item fails as often as
// the map says.
func failingAt(src source, times map[int]int) source {
	src.Item = func(_ context.Context, i int) (int, int, error) {
		if times[i] > 0 {
			times[i]--
			return 0, 0, fmt.Errorf("%w with %d", errTest, i)
		}
		return i, i, nil
	}
	return src
}

// stream is a flow of one stream.
func stream(src source) segno.Flow { return flowOf("f", one(segno.Stream(src))) }

// memos returns what the visits have kept.
func (b *bed) memos() string {
	b.t.Helper()
	return strings.Join(b.rows("SELECT value FROM _segno_memo ORDER BY run, visit, key"), " ")
}

// climb is a Stepped that counts its cursor from 0 to n and says what it was
// given each time. fault, if any, is asked before the count.
func climb(said *tally, n int, next leg, fault func(ctx context.Context, at int) error) do {
	return segno.Stepped(func(ctx context.Context, _ *cargo, at *int) (leg, bool, error) {
		said.add("%d", *at)
		if fault != nil {
			if err := fault(ctx, *at); err != nil {
				return "", false, err
			}
		}
		*at++
		return next, *at < n, nil
	})
}

// brokenAt returns a fault that happens at a place, for its first n attempts.
func brokenAt(place, n int) func(context.Context, int) error {
	return func(ctx context.Context, at int) error {
		if at == place && segno.InfoFrom(ctx).Attempt <= n {
			return fmt.Errorf("%w at %d", errTest, at)
		}
		return nil
	}
}

// holdAt returns a fault that waits for the end of its context at a place, as
// long as it is asked to.
func holdAt(place int, holds *bool) func(context.Context, int) error {
	return func(ctx context.Context, at int) error {
		if at != place || !*holds {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

// refTimed makes a row of the reference run in fake time.
func refTimed(scenario func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) { inBubble(t, scenario) }
}

// failed waits for a run that must fail, and returns why.
func (l *live) failed(id segno.RunID) error { l.t.Helper(); return l.ended(id, segno.RunFailed) }

// expectText asserts that err names the parts.
func expectText(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	if err == nil || !contains(err.Error(), parts...) {
		t.Errorf("%s: got error %v, want one with %q", what, err, parts)
	}
}
