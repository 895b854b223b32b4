package segno_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// A branch that is not needed any more has its end, too, and one that has not
// begun has no event.
func TestEventsOfASplit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", one(fork(segno.Join{Mode: segno.Any, Bulkhead: 2}, ms(-10, 20, 100, 5)...))))
		r.completed(r.trigger("f", cargo{}))
		for _, e := range w.Kind(segno.EventTaskFailed) {
			want := map[string]error{"0": errTest, "2": segno.ErrEnded}[e.Unit]
			if want == errTest {
				expect(t, "Err of branch 0", e.Err.Error(), errTest.Error())
				continue
			}
			expectError(t, "Err of branch "+e.Unit, e.Err, want)
		}
		wantEvents(t, "events", w, `run_started state_entered:a checkpoint1 task_started:a task_started:a/0 task_started:a/1 task_failed:a/0
			task_started:a/2 task_succeeded:a/1 task_failed:a/2 task_succeeded:a state_entered:done checkpoint2 run_finished:completed`)
	})
}

// A branch that fails the join ends the others as early as one that satisfies it.
func TestAJoinIsDecidedAsEarlyAsItCanBe(t *testing.T) {
	for name, c := range map[string]struct {
		j     segno.Join
		after time.Duration
	}{
		"Quorum":         {segno.Join{Mode: segno.Quorum, N: 3}, 20 * milli},
		"Percentage":     {segno.Join{Mode: segno.Percentage, Percent: 0.75}, 20 * milli},
		"PartialResults": {segno.Join{Mode: segno.PartialResults, N: 3}, 20 * milli},
		"All":            {segno.Join{}, 10 * milli},
		"Bulkhead":       {segno.Join{Bulkhead: 1}, 10 * milli},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				wantUnjoined(t, c.after, []string{"test: went wrong"}, c.j, ms(-10, -20, 500, 600)...)
			})
		})
	}
}

// A join that needs nothing calls nothing.
func TestThresholdsOfAJoin(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		wantFork(t, "[- -]", 0, segno.Join{Mode: segno.PartialResults}, ms(10, 20)...)
		wantUnjoined(t, 0, []string{"0 of 2 branches"}, segno.Join{Mode: segno.PartialResults, N: math.MaxInt}, ms(10, 20)...)
		wantFork(t, "[10ms -]", 10*milli, segno.Join{Mode: segno.Percentage, Percent: math.SmallestNonzeroFloat64}, ms(10, 20)...)
		wantFork(t, "[10ms]", 10*milli, segno.Join{Timeout: math.MaxInt64}, ms(10)...)
	})
}

// manifest is data that copies of share memory with, unless they are deep.
type manifest struct {
	Count map[string]int
	List  []int
}

func TestEachBranchHasItsOwnData(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		spoil := func(_ context.Context, d manifest) (string, error) {
			said.add("%d%v", d.Count["n"], d.List)
			d.Count["n"]++
			d.List[0]++
			return "", nil
		}
		w := segno.Workflow[leg, manifest]{Initial: legA, Steps: segno.Steps[leg, manifest]{
			legA: {Do: segno.Split(segno.Join{Bulkhead: 1}, func(_ context.Context, d *manifest, _ []segno.Settled[string]) (leg, error) {
				said.add("%d%v", d.Count["n"], d.List)
				d.Count["n"] = 100
				return done, nil
			}, spoil, spoil, spoil)},
			done: {Final: true},
		}}
		r := newBed(t).start(flowOf("f", w))
		info := r.completed(r.triggerWith("f", segno.Trigger{Input: manifest{map[string]int{"n": 1}, []int{1}}}))
		expect(t, "what each was given", said.String(), "1[1] 1[1] 1[1] 1[1]")
		expect(t, "data", string(info.Data), `{"Count":{"n":100},"List":[1]}`)
	})
}

// ends are the ways in which a process can end.
func ends() map[string]func(*bed) {
	return map[string]func(*bed){"stop": (*bed).hurry, "kill": (*bed).kill}
}

func TestTheTimeoutOfAJoinRunsOnOverARestart(t *testing.T) {
	for name, end := range ends() {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var calls tally
				f := flowOf("f", one(fork(segno.Join{Timeout: 10 * time.Second}, func(ctx context.Context, c cargo) (string, error) {
					calls.add("x")
					return takes(time.Hour, nil)(ctx, c)
				})))
				r := b.start(f)
				begin := time.Now()
				id := r.trigger("f", cargo{})
				time.Sleep(4 * time.Second)
				end(b)
				time.Sleep(3 * time.Second)
				r = b.start(f)
				expectError(t, "the run", r.ended(id, segno.RunFailed), segno.ErrJoin)
				expect(t, "took", time.Since(begin), 10*time.Second)
				expect(t, "calls", calls.len(), 2)
				id = r.trigger("f", cargo{})
				synctest.Wait()
				end(b)
				time.Sleep(time.Hour)
				r = b.start(f)
				begin = time.Now()
				expectError(t, "one that is past it", r.ended(id, segno.RunFailed), segno.ErrJoin)
				expect(t, "took", time.Since(begin), 0)
				expect(t, "calls", calls.len(), 3)
			})
		})
	}
}

// Branches that were there when the timeout passed are joined, though the
// program was not.
func TestAPartialTimeoutThatPassesWhileTheProgramIsDown(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		f := flowOf("f", one(fork(segno.Join{Mode: segno.PartialTimeout, Timeout: 10 * time.Second}, takes(time.Second, nil), takes(time.Hour, nil))))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(4 * time.Second)
		b.kill()
		time.Sleep(time.Minute)
		expect(t, "joined", text(t, b.start(f).completed(id)), "[1s -]")
	})
}

func TestABranchsRetryGoesOnOverARestart(t *testing.T) {
	for name, end := range ends() {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var s tries
				f := flowOf("f", one(fork(segno.Join{Retry: plain(3, 10*time.Second)}, func(ctx context.Context, _ cargo) (string, error) {
					if s.note(ctx) < 3 {
						return "", errTest
					}
					return "ok", nil
				}, takes(time.Hour, nil))))
				r := b.start(f)
				id := r.trigger("f", cargo{})
				time.Sleep(4 * time.Second)
				end(b)
				r = b.start(f)
				time.Sleep(20 * time.Second)
				end(b)
				time.Sleep(time.Minute)
				r = b.start(f)
				expect(t, "joined", text(t, r.completed(id)), "[ok 1h0m0s]")
				expect(t, "waits", s.gaps(), "10s 1m14s")
				expect(t, "attempts", s.numbers(), "[1 2 3]")
				expect(t, "keys", len(s.keys), 1)
			})
		})
	}
}

func TestAFailedSplitBeginsANewRound(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		branchOf := func(name string, bad int) branch {
			return func(ctx context.Context, _ cargo) (string, error) {
				before, found, err := segno.LoadMemo[string](ctx, "k")
				said.add("%s%d:%s,%v", name, segno.InfoFrom(ctx).Attempt, before, found)
				if err := errors.Join(err, segno.SaveMemo(ctx, "k", name)); err != nil {
					return "", err
				}
				if bad > 0 && said.len() <= 2*bad {
					return "", errTest
				}
				return name, nil
			}
		}
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: fork(segno.Join{Bulkhead: 1}, branchOf("x", 0), branchOf("y", 1)), Retry: plain(2, time.Second),
		})))
		id := r.trigger("f", cargo{})
		expect(t, "joined", text(t, r.completed(id)), "[x y]")
		expect(t, "attempts, and what each found", said.String(), "x1:,false y1:,false x1:,false y1:,false")
		expect(t, "log", r.log(id), "enter a, retry a, end done")
	})
}

func TestTheTimeoutOfASplitsStep(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, _ := watched(t)
		var causes tally
		slow := func(ctx context.Context, _ cargo) (string, error) {
			<-ctx.Done()
			causes.add("%d", segno.InfoFrom(ctx).Attempt)
			return "", ctx.Err()
		}
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: fork(segno.Join{}, slow, slow), Timeout: 3 * time.Second, Retry: plain(2, time.Second),
		})))
		begin := time.Now()
		id := r.trigger("f", cargo{})
		expectError(t, "the run", r.ended(id, segno.RunFailed), context.DeadlineExceeded)
		expect(t, "took", time.Since(begin), 7*time.Second)
		expect(t, "calls", causes.len(), 4)
		expect(t, "log", r.log(id), "enter a, retry a, end a")
	})
}

func TestOnCommitOfABranch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		alive := false
		f := flowOf("f", one(fork(segno.Join{Mode: segno.PartialTimeout, Timeout: time.Hour, Retry: plain(2, time.Second)},
			func(ctx context.Context, _ cargo) (string, error) { return "x", tell(ctx, "x") },
			func(ctx context.Context, _ cargo) (string, error) { return "", errors.Join(tell(ctx, "y"), errTest) },
			func(ctx context.Context, _ cargo) (string, error) {
				n := segno.InfoFrom(ctx).Attempt
				return "z", segno.OnCommit(ctx, func(tx segno.Tx) error {
					if _, err := tx.Exec("INSERT INTO told VALUES (?)", fmt.Sprint("z", n)); n == 2 {
						return err
					}
					return errTest
				})
			},
			func(ctx context.Context, c cargo) (string, error) {
				if !alive {
					return takes(time.Hour, nil)(ctx, c)
				}
				return "w", tell(ctx, "w")
			})))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(5 * time.Second)
		expect(t, "rows of the branches that ended", r.told(), "x z2")
		b.kill()
		alive = true
		r = b.start(f)
		expect(t, "joined", text(t, r.completed(id)), "[x ! z w]")
		expect(t, "rows", r.told(), "x z2 w")
	})
}

// An OnCommit function that fails for good is the failure of its branch.
func TestAFailedOnCommitFailsItsBranch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var calls tally
		r := newBed(t).start(flowOf("f", one(fork(segno.Join{Mode: segno.Quorum, N: 1, Retry: plain(2, time.Second)},
			func(ctx context.Context, _ cargo) (string, error) {
				calls.add("x")
				return "x", segno.OnCommit(ctx, func(segno.Tx) error { return errTest })
			}, func(ctx context.Context, _ cargo) (string, error) {
				return "y", segno.OnCommit(ctx, func(segno.Tx) error { panic("odd") })
			}, takes(time.Minute, nil)))))
		expect(t, "joined", text(t, r.completed(r.trigger("f", cargo{}))), "[! ! 1m0s]")
		expect(t, "calls of the first", calls.len(), 2)
	})
}

func TestKeysOfBranches(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var keys [3]tally
		alive := false
		branchOf := func(i int) branch {
			return func(ctx context.Context, c cargo) (string, error) {
				in := segno.InfoFrom(ctx)
				keys[i].add("%s", in.Key)
				if in.Attempt == 1 {
					return "", errTest
				}
				if !alive {
					return takes(time.Hour, nil)(ctx, c)
				}
				return "", nil
			}
		}
		f := flowOf("f", one(segno.Split(segno.Join{Retry: plain(2, time.Second)}, func(ctx context.Context, _ *cargo, _ []segno.Settled[string]) (leg, error) {
			keys[2].add("%s", segno.InfoFrom(ctx).Key)
			return done, nil
		}, branchOf(0), branchOf(1))))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(10 * time.Second)
		b.kill()
		alive = true
		b.start(f).completed(id)
		key := keys[2].String()
		for i, want := range []string{key + "/0", key + "/1"} {
			expect(t, fmt.Sprint("keys of branch ", i), keys[i].String(), want+" "+want+" "+want)
		}
		expect(t, "key of merge ends with visit and state", strings.HasSuffix(key, "/1/a"), true)
	})
}

// A branch that does not hear that it is not needed is waited for, but no longer
// than the grace; what it makes then is not wanted.
func TestABranchThatIgnoresTheDecision(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema, Grace: 2 * time.Second})
		var late tally
		deaf := func(d time.Duration) branch {
			return func(ctx context.Context, _ cargo) (string, error) {
				time.Sleep(d)
				if err := tell(ctx, d.String()); err != nil {
					late.add("%v %v %v", d, errors.Is(err, segno.ErrEnded), errors.Is(segno.SaveMemo(ctx, "k", 1), segno.ErrEnded))
				}
				return d.String(), nil
			}
		}
		r := b.start(flowOf("f", one(fork(segno.Join{Mode: segno.Any}, takes(time.Second, nil), deaf(2*time.Second), deaf(time.Hour)))))
		begin := time.Now()
		id := r.trigger("f", cargo{})
		expect(t, "joined", text(t, r.completed(id)), "[1s 2s -]")
		expect(t, "took", time.Since(begin), 3*time.Second)
		time.Sleep(2 * time.Hour)
		expect(t, "handles that were too late", late.String(), "1h0m0s true true")
		expect(t, "rows", r.told(), "2s")
	})
}

func TestABranchsOwnWays(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s [5]tries
		r := newBed(t).start(flowOf("f", one(fork(segno.Join{Mode: segno.PartialTimeout, Timeout: 24 * time.Hour, Retry: plain(3, time.Second)},
			func(ctx context.Context, _ cargo) (string, error) { s[0].note(ctx); panic("odd") },
			func(ctx context.Context, _ cargo) (string, error) { s[1].note(ctx); runtime.Goexit(); return "", nil },
			func(ctx context.Context, _ cargo) (string, error) {
				s[2].note(ctx)
				return "", segno.Permanent(errTest)
			},
			func(ctx context.Context, _ cargo) (string, error) {
				if s[3].note(ctx) == 1 {
					return "", segno.RetryAfter(errTest, time.Minute)
				}
				return "again", nil
			},
			func(ctx context.Context, _ cargo) (string, error) {
				switch s[4].note(ctx); s[4].calls() {
				case 1:
					return "", errTest
				case 2:
					return "", segno.Snooze(time.Hour)
				case 3:
					return "", segno.SnoozeUntil(time.Now().Add(2 * time.Hour))
				}
				return "rested", nil
			}))))
		expect(t, "joined", text(t, r.completed(r.trigger("f", cargo{}))), "[! ! ! again rested]")
		for i, want := range []string{"[1]", "[1]", "[1]", "[1 2]", "[1 2 1 1]"} {
			expect(t, fmt.Sprint("attempts of branch ", i), s[i].numbers(), want)
		}
		expect(t, "a wait of its own", s[3].gaps(), "1m0s")
		expect(t, "a retry and two snoozes", s[4].gaps(), "1s 1h0m0s 2h0m0s")
	})
}

// A branch that snoozes has succeeded so far: what it has done is kept.
func TestASnoozeOfABranchKeepsWhatJoinsIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		r := b.start(flowOf("f", one(fork(segno.Join{}, func(ctx context.Context, _ cargo) (string, error) {
			n, _, err := segno.LoadMemo[int](ctx, "n")
			if err := errors.Join(err, segno.SaveMemo(ctx, "n", n+1), tell(ctx, fmt.Sprint(n))); err != nil {
				return "", err
			}
			if n < 3 {
				return "", segno.Snooze(time.Hour)
			}
			return fmt.Sprint(n), nil
		}))))
		expect(t, "joined", text(t, r.completed(r.trigger("f", cargo{}))), "[3]")
		expect(t, "rows", r.told(), "0 1 2 3")
	})
}

func TestPanicsOfABranchAreRetriedIfAskedFor(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		retry := plain(3, time.Second)
		retry.Panics = true
		wantFork(t, "[ok]", 3*time.Second, segno.Join{Retry: retry}, func(ctx context.Context, _ cargo) (string, error) {
			switch segno.InfoFrom(ctx).Attempt {
			case 1:
				panic("odd")
			case 2:
				runtime.Goexit()
			}
			return "ok", nil
		})
	})
}
