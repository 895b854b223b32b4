package segno_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// A defectBranch is a defectBranch of a Split.
type defectBranch = func(context.Context, cargo) (int, error)

// good succeeds and bad fails, after so many seconds; never waits for its context.
func good(seconds int) defectBranch {
	return func(context.Context, cargo) (int, error) {
		time.Sleep(time.Duration(seconds) * time.Second)
		return seconds, nil
	}
}

func bad(seconds int) defectBranch {
	return func(context.Context, cargo) (int, error) {
		time.Sleep(time.Duration(seconds) * time.Second)
		return 0, errTest
	}
}

func never(ctx context.Context, _ cargo) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// joined is a row that splits into the branches. After so many seconds the run
// must have ended, with the branches as said, "failed" if they cannot be joined.
func joined(j segno.Join, seconds int, want string, branches ...defectBranch) func(*testing.T) {
	return inRow(func(t *testing.T, b *bed) {
		r := b.start(flowOf("f", one(segno.Split(j, func(_ context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
			n := map[string]int{}
			for _, s := range all {
				n[map[bool]string{true: "skipped", false: map[bool]string{true: "ok", false: "bad"}[s.Err == nil]}[s.Skipped]]++
			}
			c.Text = fmt.Sprintf("%d ok, %d bad, %d skipped", n["ok"], n["bad"], n["skipped"])
			return done, nil
		}, branches...))))
		begin := time.Now()
		info, err := r.WaitRun(context.Background(), r.trigger("f", cargo{}))
		got := string(info.Data)
		if err != nil {
			expectError(t, "the run", err, segno.ErrJoin)
			got = "failed"
		}
		expect(t, "branches", strings.TrimSuffix(strings.TrimPrefix(got, `{"text":"`), `"}`), want)
		expect(t, "took", time.Since(begin), time.Duration(seconds)*time.Second)
	})
}

func defectsOfSplits() map[string]func(*testing.T) {
	hundred := make([]defectBranch, 100)
	for i := range hundred {
		if hundred[i] = good(0); i >= 55 {
			hundred[i] = never
		}
	}
	quorum := segno.Join{Mode: segno.Quorum, N: 2, Timeout: time.Hour}
	rows := map[string]func(*testing.T){
		"split_1_a_quorum_is_not_waited_beyond":       joined(quorum, 2, "2 ok, 0 bad, 1 skipped", good(1), good(2), never),
		"split_1_a_quorum_that_is_lost_fails_at_once": joined(quorum, 2, "failed", bad(1), bad(2), never),
		"split_1_a_percentage_is_not_waited_beyond": joined(segno.Join{Mode: segno.Percentage, Percent: 0.5, Timeout: time.Hour}, 2,
			"2 ok, 0 bad, 2 skipped", good(1), good(2), never, never),
		"split_2_only_successes_are_results": joined(segno.Join{Mode: segno.PartialResults, N: 2}, 3, "2 ok, 1 bad, 1 skipped", bad(1), good(2), good(3), never),
		"split_4_no_results_are_asked_for":   joined(segno.Join{Mode: segno.PartialResults}, 0, "0 ok, 0 bad, 2 skipped", never, never),
		"split_5_a_share_is_a_share":         joined(segno.Join{Mode: segno.Percentage, Percent: 0.55}, 0, "55 ok, 0 bad, 45 skipped", hundred...),
		"split_8_more_than_there_are": joined(segno.Join{Mode: segno.Quorum, N: 3}, 0, "failed", never,
			func(context.Context, cargo) (int, error) { panic("no defectBranch is begun") }),
		"split_7_a_lost_branch_has_its_place": inRow(func(t *testing.T, b *bed) {
			lost := func(context.Context, cargo) (int, error) { runtime.Goexit(); return 0, nil }
			r := b.start(flowOf("f", one(segno.Split(segno.Join{Mode: segno.PartialTimeout, Timeout: time.Minute}, func(_ context.Context, _ *cargo, all []segno.Settled[int]) (leg, error) {
				expect(t, "branches", len(all), 3)
				expect(t, "the first and the last", fmt.Sprint(all[0], all[2]), "{1 <nil> false} {2 <nil> false}")
				expectError(t, "the lost one", all[1].Err, segno.ErrPanic)
				expect(t, "the lost one was skipped", all[1].Skipped, false)
				return done, nil
			}, good(1), lost, good(2)))))
			r.completed(r.trigger("f", cargo{}))
		}),
	}
	for mode, want := range map[segno.JoinMode]string{
		segno.All: "", segno.PartialResults: "", segno.Quorum: "", segno.Percentage: "", segno.Any: "failed", segno.PartialTimeout: "failed",
	} {
		if want == "" {
			want = "0 ok, 0 bad, 0 skipped"
		}
		j := segno.Join{Mode: mode, Percent: 0.5, Timeout: time.Hour}
		rows[fmt.Sprintf("split_3_no_branches/mode %d", mode)] = joined(j, 0, want)
		if j.N = 1; mode == segno.Quorum {
			rows["split_3_no_branches/a quorum of one"] = joined(j, 0, "failed")
		}
	}
	return rows
}

func defectsOfSagas() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"recovery_10_states_are_their_text": inRow(func(t *testing.T, b *bed) {
			r := b.start(flowOf("f", route{Initial: "a", Steps: legs{
				legA: {Do: to("b")}, "A": {Do: fail}, " a": {Do: fail}, legB: {Do: to("done")}, done: {Final: true},
			}}))
			id := r.trigger("f", cargo{})
			r.completed(id)
			expect(t, "log", r.log(id), "enter a, enter b, end done")
		}),
		"recovery_12_unknown_kinds_stay_as_they_are": inRow(func(t *testing.T, b *bed) {
			f := flowOf("f", oneStep(segno.Step[leg, cargo]{Retry: segno.Fixed(2, time.Second), Do: func(ctx context.Context, _ *cargo) (leg, error) {
				if segno.InfoFrom(ctx).Attempt == 1 {
					return "", errTest
				}
				return done, nil
			}}))
			r := b.start(f)
			id := r.trigger("f", cargo{})
			r.completed(id)
			b.stop()
			b.exec("UPDATE _segno_journal SET kind = 'dream' WHERE kind = 'retry'")
			r = b.start(f)
			expect(t, "log", r.log(id), "enter a, dream a, end done")
			expect(t, "visits", r.info(id).Visit, 2)
			b.stop()
			b.exec("UPDATE _segno_journal SET kind = 'retry' WHERE kind = 'dream'")
		}),
		"saga_2_nothing_is_undone_between_attempts": inRow(func(t *testing.T, b *bed) {
			var said tally
			r := b.start(flowOf("f", change(saga(2, &said, fail), "s2", func(s *segno.Step[leg, cargo]) {
				s.Retry = segno.Fixed(3, time.Second)
				s.Do = func(context.Context, *cargo) (leg, error) { said.add("try"); return "", errTest }
			})))
			e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "said", said.String(), "try try try s1:1")
			expect(t, "the error is the step's own", e.Err.Error(), errTest.Error())
		}),
		"saga_6_a_cancel_ends_the_wait_for_a_retry": inRow(func(t *testing.T, b *bed) {
			var said tally
			for _, wait := range []time.Duration{500 * time.Millisecond, time.Hour} { // in memory, and parked
				r := b.start(flowOf("f", change(saga(2, &said, fail), "s2", func(s *segno.Step[leg, cargo]) {
					s.Retry, s.Do = segno.Fixed(2, wait), fail
				})))
				id := r.trigger("f", cargo{})
				synctest.Wait()
				begin := time.Now()
				r.cancel(id)
				r.ended(id, segno.RunCancelled)
				expect(t, "the cancel took", time.Since(begin), 0)
				expect(t, "undone", said.take(), "s1:1")
				b.stop()
			}
		}),
		"saga_7_a_failed_undo_keeps_its_data": inRow(func(t *testing.T, b *bed) {
			var said tally
			var broken error = errTest
			f := flowOf("f", change(saga(2, &said, fail), "s2", func(s *segno.Step[leg, cargo]) {
				s.Undo = func(_ context.Context, c cargo) error { said.add("undo of %d", c.N); return broken }
			}))
			r := b.start(f)
			id := r.trigger("f", cargo{N: 40})
			r.ended(id, segno.RunUndoFailed)
			b.stop()
			broken = nil
			r = b.start(f)
			for _, e := range r.entries(id) {
				if e.Kind == "undo_failed" {
					expect(t, "state and error of the failed undo", e.State+": "+e.Error, "s2: "+errTest.Error())
				}
				if e.Kind == "enter" && e.Visit == 3 {
					expect(t, "data as the visit left it", string(e.Data), `{"n":42}`)
				}
			}
			if err := r.UndoRun(context.Background(), id); err != nil {
				t.Fatal(err)
			}
			r.ended(id, segno.RunFailed)
			expect(t, "said", said.String(), "undo of 42 s1:41 undo of 42")
		}),
		"cancel_2_the_path_ends_in_the_state": inRow(func(t *testing.T, b *bed) {
			var said tally
			alive := false
			r := b.start(flowOf("f", line(&said, hold, unless(&alive, done))))
			later := r.triggerWith("f", segno.Trigger{At: time.Now().Add(time.Hour)})
			id := r.trigger("f", cargo{})
			synctest.Wait()
			for run, want := range map[segno.RunID]string{id: "b in [a b]", later: "a in [a]"} {
				r.cancel(run)
				e := r.ended(run, segno.RunCancelled)
				expect(t, "state and path", fmt.Sprintf("%s in %v", e.State, e.Path), want)
			}
		}),
	}
}
