package segno_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

func TestDataAndFunctionsOfAStepAreCommittedWithItsCursor(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		var keys tally
		holds := true
		f := flowOf("f", one(segno.Stepped(func(ctx context.Context, c *cargo, at *int) (leg, bool, error) {
			keys.add("%s", segno.InfoFrom(ctx).Key)
			c.N += 10
			err := tell(ctx, fmt.Sprint(*at))
			if *at == 2 && holds {
				<-ctx.Done()
				return "", false, ctx.Err()
			}
			*at++
			return done, *at < 4, err
		})))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		expect(t, "data in the middle", string(r.info(id).Data), `{"n":20}`)
		expect(t, "rows in the middle", r.told(), "0 1")
		b.kill()
		holds = false
		r = b.start(f)
		r.completed(id)
		expect(t, "rows", r.told(), "0 1 2 3")
		expect(t, "data", string(r.info(id).Data), `{"n":40}`)
		all := strings.Fields(keys.String())
		expect(t, "the key of a step that comes again", all[2], all[3])
		for i, n := range []int{1, 2, 3, 3, 4} {
			expect(t, all[i], strings.HasSuffix(all[i], fmt.Sprintf("/1/a/%d", n)), true)
		}
	})
}

// Each call has the attempts and the timeout of the step.
func TestEachStepHasItsOwnAttempts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Retry: segno.Fixed(2, time.Millisecond), Timeout: time.Second,
			Do: climb(&said, 3, done, func(ctx context.Context, _ int) error {
				if segno.InfoFrom(ctx).Attempt == 1 {
					<-ctx.Done()
				}
				return ctx.Err()
			}),
		})))
		id := r.trigger("f", cargo{})
		r.completed(id)
		expect(t, "cursors", said.String(), "0 0 1 1 2 2")
		expect(t, "log", r.log(id), "enter a, retry a, retry a, retry a, end done")
	})
}

func TestAStepThatSnoozesKeepsItsCursor(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		f := flowOf("f", one(segno.Stepped(func(_ context.Context, _ *cargo, at *int) (leg, bool, error) {
			said.add("%d", *at)
			if *at++; *at == 2 {
				return "", true, segno.Snooze(time.Hour)
			}
			return done, *at < 4, nil
		})))
		r := b.start(f)
		begin := time.Now()
		id := r.trigger("f", cargo{})
		synctest.Wait()
		expect(t, "status", r.info(id).Status, segno.RunParked)
		r = b.restart(f)
		r.completed(id)
		expect(t, "took", time.Since(begin), time.Hour)
		expect(t, "cursors", said.String(), "0 1 2 3")
	})
}

func TestAStepThatDoesNotMoveDoesNotSpin(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		calls := 0
		r := newBed(t).start(flowOf("f", one(segno.Stepped(func(context.Context, *cargo, *struct{}) (leg, bool, error) {
			calls++
			return "", true, nil
		}))))
		id := r.trigger("f", cargo{})
		time.Sleep(100 * time.Millisecond)
		r.cancel(id)
		r.ended(id, segno.RunCancelled)
		expect(t, fmt.Sprintf("%d calls are about a hundred", calls), calls >= 90 && calls <= 103, true)
	})
}

func TestACursorThatCannotBeWrittenFailsTheVisitAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(
			flowOf("value", oneStep(segno.Step[leg, cargo]{Retry: segno.Fixed(3, time.Second), Do: segno.Stepped(func(ctx context.Context, _ *cargo, at *float64) (leg, bool, error) {
				s.note(ctx)
				*at = math.NaN()
				return "", true, nil
			})})),
			flowOf("type", oneStep(segno.Step[leg, cargo]{Retry: segno.Fixed(3, time.Second), Do: segno.Stepped(func(ctx context.Context, _ *cargo, _ *chan int) (leg, bool, error) {
				s.note(ctx)
				return done, false, nil
			})})),
		)
		expectText(t, "a value", r.failed(r.trigger("value", cargo{})), "cursor")
		expect(t, "attempts", s.calls(), 1)
		expectText(t, "a type", r.failed(r.trigger("type", cargo{})), "chan int")
		expect(t, "attempts", s.calls(), 1)
	})
}

func TestAStopAndACancelComeBetweenSteps(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said, undone tally
		w := saga(1, &undone, climb(&said, 9, done, func(context.Context, int) error { time.Sleep(time.Second); return nil }))
		change(w, "s2", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(context.Context, cargo) error { return errors.New("not finished") }
		})
		f := flowOf("f", w)
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(2500 * time.Millisecond)
		begin := time.Now()
		b.stop()
		expect(t, "the stop took the rest of the step", time.Since(begin), 500*time.Millisecond)
		expect(t, "cursors", said.take(), "0 1 2")
		r = b.start(f)
		time.Sleep(1500 * time.Millisecond)
		r.cancel(id)
		r.ended(id, segno.RunCancelled)
		expect(t, "cursors", said.String(), "3 4")
		expect(t, "undone: the visit has not finished", undone.String(), "s1:1")
	})
}
