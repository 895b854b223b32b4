package segno_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// Behind a snooze the attempts are counted from 1 again, but what merge is given
// is of the round in which it snoozed, not of the first.
func TestASnoozeOfMergeStaysInItsRound(t *testing.T) {
	models := map[string]func(unit func() int, join func(context.Context, *cargo, []segno.Settled[int]) (leg, error)) do{
		"Split": func(unit func() int, join func(context.Context, *cargo, []segno.Settled[int]) (leg, error)) do {
			return segno.Split(segno.Join{}, join, func(context.Context, cargo) (int, error) { return unit(), nil })
		},
		"Batch": func(unit func() int, join func(context.Context, *cargo, []segno.Settled[int]) (leg, error)) do {
			return segno.Batch(numbers(1), func(context.Context, int) (int, error) { return unit(), nil }, join)
		},
	}
	for name, model := range models {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var said tally
				calls, joins := 0, 0
				unit := func() int { calls++; return calls }
				join := func(ctx context.Context, _ *cargo, all []segno.Settled[int]) (leg, error) {
					joins++
					said.add("%d:%s", segno.InfoFrom(ctx).Attempt, settled(all))
					switch joins {
					case 1, 3:
						return "", errTest
					case 2, 4:
						return "", segno.Snooze(time.Minute)
					}
					return done, nil
				}
				f := flowOf("f", oneStep(segno.Step[leg, cargo]{Do: model(unit, join), Retry: plain(2, time.Second)}))
				b := newBed(t)
				r := b.start(f)
				id := r.trigger("f", cargo{})
				time.Sleep(30 * time.Second)
				b.stop()
				b.start(f).completed(id)
				expect(t, "attempts and what the units have made", said.String(), "1:1 2:2 1:2 2:3 1:3")
			})
		})
	}
}

// Load is a unit like any other: what joins one that snoozes is not lost.
func TestALoadThatSnoozesKeepsWhatJoinsIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		loads, finishes := 0, 0
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Retry: plain(2, time.Second), Do: segno.Batch(func(ctx context.Context, c cargo) ([]int, error) {
			loads++
			if err := tell(ctx, fmt.Sprint(loads)); err != nil {
				return nil, err
			}
			if loads != 2 && loads < 4 {
				return nil, segno.Snooze(time.Minute)
			}
			return []int{loads}, nil
		}, tenfold, func(ctx context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
			if finishes++; finishes == 1 {
				return "", errTest
			}
			return report(ctx, c, all)
		})})))
		begin := time.Now()
		expect(t, "settled", text(t, r.completed(r.trigger("f", cargo{}))), "40")
		expect(t, "took", time.Since(begin), 2*time.Minute+time.Second)
		expect(t, "rows", r.told(), "1 2 3 4")
	})
}

// A retry does not begin while a unit of the attempt before is still at it.
func TestARetryWaitsForTheUnitsOfTheAttemptBefore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		deaf := func(ctx context.Context, _ cargo) (string, error) {
			if s.note(ctx); s.calls() == 1 {
				time.Sleep(20 * time.Second)
			}
			return "ok", nil
		}
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: fork(segno.Join{}, deaf), Timeout: 3 * time.Second, Retry: plain(2, time.Second),
		})))
		id := r.trigger("f", cargo{})
		expect(t, "joined", text(t, r.completed(id)), "[ok]")
		expect(t, "between the attempts", s.gaps(), "21s")
		expect(t, "the outcome of the first is unknown", r.entries(id)[1].Uncertain, true)
	})
}

func TestAUnitThatNeverReturnsIsAbandoned(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, _ := watched(t)
		var s tries
		deaf := func(ctx context.Context, _ cargo) (string, error) {
			if s.note(ctx); s.calls() == 1 {
				time.Sleep(time.Hour)
				expectError(t, "a handle of the dead attempt", segno.SaveMemo(ctx, "k", 1), segno.ErrEnded)
			}
			return "ok", nil
		}
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: fork(segno.Join{}, deaf), Timeout: 3 * time.Second, Retry: plain(2, time.Second),
		})))
		id := r.trigger("f", cargo{})
		expect(t, "joined", text(t, r.completed(id)), "[ok]")
		expect(t, "between the attempts", s.gaps(), "1m9s") // timeout, grace, AbandonAfter, retry
		expect(t, "cause", r.entries(id)[1].Cause, "abandoned")
		expect(t, "goroutines in runs: the lost one", r.InHand(), 1)
		time.Sleep(time.Hour)
		expect(t, "goroutines in runs, when it is back", r.InHand(), 0)
	})
}

func TestAClockSetBackProlongsNoWaitOfAUnit(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"in the step": time.Hour, "between its units": 0} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t).with(segno.Options{ParkAfter: time.Hour})
				var s tries
				r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Timeout: timeout, Do: fork(segno.Join{Retry: plain(2, 10*time.Second)}, func(ctx context.Context, _ cargo) (string, error) {
					if s.note(ctx) == 1 {
						return "", errTest
					}
					return "ok", nil
				})})))
				id := r.trigger("f", cargo{})
				time.Sleep(5 * time.Second)
				b.stepClock(-24 * time.Hour)
				r.completed(id)
				if got := s.gap(1); got < 10*time.Second || got > 20*time.Second {
					t.Errorf("wait: got = %v, want 10s, or twice that", got)
				}
			})
		})
	}
}

func TestAClockSetBackProlongsNoJoin(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		f := flowOf("f", one(fork(segno.Join{Timeout: 10 * time.Second}, takes(time.Hour, nil))))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		begin := time.Now()
		time.Sleep(5 * time.Second)
		b.stepClock(-24 * time.Hour)
		expectError(t, "the run", r.ended(id, segno.RunFailed), segno.ErrJoin)
		expect(t, "took", time.Since(begin), 10*time.Second)
		id = r.trigger("f", cargo{})
		begin = time.Now()
		synctest.Wait()
		b.kill()
		b.stepClock(-48 * time.Hour)
		expectError(t, "one over a restart", b.start(f).ended(id, segno.RunFailed), segno.ErrJoin)
		expect(t, "took", time.Since(begin), 10*time.Second)
	})
}

// A failed attempt of an item leaves no traces in what the next one gets.
func TestAnItemIsDecodedForEachAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(flowOf("f", one(segno.Batch(
			func(context.Context, cargo) ([]map[string]int, error) { return []map[string]int{{"n": 1}}, nil },
			func(ctx context.Context, m map[string]int) (int, error) {
				said.add("%d", m["n"])
				if m["n"]++; segno.InfoFrom(ctx).Attempt < 3 {
					return 0, errTest
				}
				return m["n"], nil
			}, report, segno.BatchOptions{Retry: plain(3, time.Second)}))))
		expect(t, "settled", text(t, r.completed(r.trigger("f", cargo{}))), "2")
		expect(t, "what the attempts were given", said.String(), "1 1 1")
	})
}

// JSON has a form of its own for bytes.
func TestItemsOfBytes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(segno.Batch(
			func(context.Context, cargo) ([]byte, error) { return []byte{1, 2, 3}, nil },
			func(_ context.Context, b byte) (int, error) { return 10 * int(b), nil }, report))))
		expect(t, "settled", text(t, r.completed(r.trigger("f", cargo{}))), "10 20 30")
	})
}

// Items and results of another type than the one they were kept as are nobody's
// failure: the run waits for a person.
func TestAFanOfAnotherTypeIsStuck(t *testing.T) {
	holdText := func(ctx context.Context, _ string) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}
	join := func(context.Context, *cargo, []segno.Settled[string]) (leg, error) { return done, nil }
	words := func(context.Context, cargo) ([]string, error) { return []string{"x"}, nil }
	held := func(ctx context.Context, _ cargo) (string, error) { return holdText(ctx, "") }
	for name, pair := range map[string][2]do{
		"items": {segno.Batch(words, holdText, join), segno.Batch(numbers(1), tenfold, report)},
		"results": {
			segno.Split(segno.Join{}, join, func(context.Context, cargo) (string, error) { return "x", nil }, held),
			segno.Split(segno.Join{}, report, func(context.Context, cargo) (int, error) { return 1, nil }, func(context.Context, cargo) (int, error) { return 2, nil }),
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: pair[0], Retry: plain(3, time.Second)})))
				id := r.trigger("f", cargo{})
				synctest.Wait()
				r = b.restart(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: pair[1], Retry: plain(3, time.Second)})))
				_, err := r.WaitRun(context.Background(), id)
				expectError(t, "the run", err, segno.ErrStuck)
				expect(t, "Status", r.info(id).Status, segno.RunStuck)
			})
		})
	}
}

// oneWay can be written and not be read back.
type oneWay struct{ N int }

func (oneWay) MarshalJSON() ([]byte, error)  { return []byte(`"x"`), nil }
func (*oneWay) UnmarshalJSON(b []byte) error { return errors.New("no way back") }

var _ json.Unmarshaler = (*oneWay)(nil)

// A result that would not survive is a failure of its unit, at once, and no
// other attempt would make it better.
func TestAResultThatCannotBeKeptFailsItsUnit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var calls, errs tally
		r := newBed(t).start(flowOf("f", one(segno.Batch(numbers(1), func(context.Context, int) (oneWay, error) {
			calls.add("x")
			return oneWay{}, nil
		}, func(_ context.Context, c *cargo, all []segno.Settled[oneWay]) (leg, error) {
			errs.add("%v", all[0].Err)
			return done, nil
		}, segno.BatchOptions{Retry: plain(3, time.Second)}))))
		r.completed(r.trigger("f", cargo{}))
		expect(t, "calls", calls.len(), 1)
		if !contains(errs.String(), "no way back", "oneWay") {
			t.Errorf("error: got = %s, want type and cause", &errs)
		}
	})
}

func TestItemsThatCannotBeKeptFailTheBatch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Retry: plain(3, time.Second), Do: segno.Batch(
			func(context.Context, cargo) ([]oneWay, error) { return []oneWay{{1}}, nil },
			func(context.Context, oneWay) (int, error) { return 1, nil }, report)})))
		id := r.trigger("f", cargo{})
		e := r.ended(id, segno.RunFailed)
		expect(t, "names the item", contains(e.Error(), "item 0", "no way back"), true)
		expect(t, "attempts", e.Attempt, 1)
	})
}

func TestFaultsOfAFan(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		type odd struct{ F func() }
		text := func(context.Context, *cargo, []segno.Settled[string]) (leg, error) { return done, nil }
		var fine branch = func(context.Context, cargo) (string, error) { return "", nil }
		faults := map[string]do{
			"branch":         segno.Split(segno.Join{}, text, fine, nil),
			"merge":          segno.Split[leg, cargo, string](segno.Join{}, nil, fine),
			"mode":           segno.Split(segno.Join{Mode: 17}, text, fine),
			"mode-":          segno.Split(segno.Join{Mode: -1}, text, fine),
			"n":              segno.Split(segno.Join{Mode: segno.Quorum, N: -1}, text, fine),
			"timeout":        segno.Split(segno.Join{Timeout: -1}, text, fine),
			"retry":          segno.Split(segno.Join{Retry: segno.Retry{Attempts: -1}}, text, fine),
			"result":         segno.Split(segno.Join{}, func(context.Context, *cargo, []segno.Settled[odd]) (leg, error) { return done, nil }),
			"load":           segno.Batch(nil, tenfold, report),
			"item":           segno.Batch[leg, cargo, int, int](numbers(1), nil, report),
			"finish":         segno.Batch[leg, cargo](numbers(1), tenfold, nil),
			"concurrency":    segno.Batch(numbers(1), tenfold, report, segno.BatchOptions{Concurrency: -1}),
			"retry of items": segno.Batch(numbers(1), tenfold, report, segno.BatchOptions{Retry: segno.Retry{Jitter: 2}}),
			"items":          segno.Batch(func(context.Context, cargo) ([]odd, error) { return nil, nil }, func(context.Context, odd) (int, error) { return 0, nil }, report),
		}
		var flows []segno.Flow
		for name, f := range faults {
			flows = append(flows, flowOf(name, oneStep(segno.Step[leg, cargo]{Do: f, Retry: plain(3, time.Second)})))
		}
		r := newBed(t).start(flows...)
		for name := range faults {
			e := r.ended(r.trigger(name, cargo{}), segno.RunFailed)
			if !contains(e.Error(), segno.ErrConfig.Error()) || e.Attempt != 1 {
				t.Errorf("%s: got = %v in attempt %d, want %v in the first", name, e, e.Attempt, segno.ErrConfig)
			}
		}
	})
}

func TestASmallPercentageNeedsABranch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		wantFork(t, "[10ms - -]", 10*milli, segno.Join{Mode: segno.Percentage, Percent: 1e-10}, ms(10, 20, 30)...)
	})
}

// What is left to do is not done under a context that has ended.
func TestNothingIsFinishedBehindACancel(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(flowOf("f", one(segno.Batch(numbers(1), func(context.Context, int) (int, error) {
			time.Sleep(2 * time.Second) // whatever becomes of its context
			return 1, nil
		}, func(context.Context, *cargo, []segno.Settled[int]) (leg, error) { said.add("finish"); return done, nil }))))
		id := r.trigger("f", cargo{})
		time.Sleep(time.Second)
		r.cancel(id)
		r.ended(id, segno.RunCancelled)
		expect(t, "calls", said.String(), "")
	})
}
