package segno_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// snoozing is a flow of the given version that waits in its second state for
// an hour, and then goes on to the third.
func snoozing(version int, said *tally) route {
	return route{Version: version, Initial: legA, Steps: legs{
		legA: {
			Do:   func(_ context.Context, c *cargo) (leg, error) { c.N++; return legB, nil },
			Undo: func(_ context.Context, c cargo) error { said.add("undo:%d", c.N); return nil },
		},
		legB: {Do: func(ctx context.Context, c *cargo) (leg, error) {
			said.add("b%d:%s", version, c.Text)
			if c.Text == "" {
				c.Text = "slept"
				return "", segno.Snooze(time.Hour)
			}
			if c.Text == "fail" {
				return "", errTest
			}
			return done, nil
		}},
		done: {Final: true},
	}}
}

func TestARunOfAnotherVersionIsStuckBeforeAnyOfItsCodeRuns(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		ctx := context.Background()
		var said tally
		for _, version := range []int{2, 0} { // a newer program, and one that was rolled back
			r := b.start(flowOf("f", snoozing(1, &said)))
			id := r.trigger("f", cargo{})
			synctest.Wait()
			b.kill()
			time.Sleep(2 * time.Hour)
			said.take()
			other := flowOf("f", snoozing(version, &said))
			r = b.start(other)
			_, err := r.WaitRun(ctx, id)
			expectError(t, "WaitRun", err, segno.ErrStuck)
			info := r.info(id)
			expect(t, "status", info.Status, segno.RunStuck)
			expect(t, "the reason", contains(info.StuckReason, "version 1", fmt.Sprintf("the workflow %d", version), "Migrate"), true)
			expect(t, "state", info.State, "b")
			expect(t, "version", info.Version, 1)
			expect(t, "steps called", said.String(), "")
			expect(t, "Stuck", r.status("f").Stuck, 1)
			r.completed(r.trigger("f", cargo{Text: "x"})) // the flow goes on with new runs
			r = b.restart(other)
			expect(t, "status after a restart", r.info(id).Status, segno.RunStuck)
			b.stop()

			r = b.start(flowOf("f", snoozing(1, &said))) // the fix
			if err := r.ResumeRun(ctx, id); err != nil {
				t.Fatalf("ResumeRun: got error %v, want none", err)
			}
			r.completed(id)
			expect(t, "log", r.log(id), "enter a, enter b, stuck b, end done")
			expectError(t, "ResumeRun of an ended run", r.ResumeRun(ctx, id), segno.ErrConfig)
			expectError(t, "ResumeRun of an unknown run", r.ResumeRun(ctx, 999), segno.ErrNotFound)
			b.stop()
		}
	})
}

func TestMigrateTranslatesARunBeforeAnyBody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		r := b.start(flowOf("f", snoozing(1, &said)))
		id := r.trigger("f", cargo{N: 10})
		synctest.Wait()
		b.kill()
		time.Sleep(time.Hour)
		said.take()

		type load struct{ Count, Version int }
		next := segno.Workflow[string, load]{
			Version: 3, Initial: "start",
			Steps: segno.Steps[string, load]{
				"start": {Do: func(context.Context, *load) (string, error) { return "wait", nil }},
				"wait": {Do: func(_ context.Context, l *load) (string, error) {
					said.add("wait:%d:%d", l.Count, l.Version)
					return "end", nil
				}},
				"end": {Final: true},
			},
			Migrate: func(from int, state string, data []byte) (string, load, error) {
				var c cargo
				err := json.Unmarshal(data, &c)
				said.add("migrate:%d:%s:%d", from, state, c.N)
				return map[string]string{"b": "wait"}[state], load{c.N, from}, err
			},
		}
		r = b.start(flowOf("f", next))
		info := r.completed(id)
		expect(t, "said", said.String(), "migrate:1:b:11 wait:11:1")
		expect(t, "data", string(info.Data), `{"Count":11,"Version":1}`)
		expect(t, "version", info.Version, 3)
		entries := r.entries(id)
		expect(t, "versions of the entries", fmt.Sprint(entries[0].Version, entries[1].Version, entries[len(entries)-1].Version), "1 1 3")
	})
}

func TestTheMigratedHeadIsCommittedBeforeItsBody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		r := b.start(flowOf("f", snoozing(1, &said)))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.kill()
		time.Sleep(time.Hour)
		next := snoozing(2, &said)
		next.Migrate = func(int, string, []byte) (leg, cargo, error) { said.add("migrate"); return legB, cargo{N: 5}, nil }
		change(next, legB, func(s *segno.Step[leg, cargo]) { s.Do = hold })
		r = b.start(flowOf("f", next))
		synctest.Wait()
		expect(t, "version in the file", r.info(id).Version, 2)
		expect(t, "data in the file", string(r.info(id).Data), `{"n":5}`)
		b.restart(flowOf("f", next))
		synctest.Wait()
		expect(t, "migrations", strings.Count(said.String(), "migrate"), 1)
		b.hurry()
	})
}

func TestAMigrateThatFailsMakesTheRunStuck(t *testing.T) {
	for name, migrate := range map[string]func(int, string, []byte) (leg, cargo, error){
		"error":         func(int, string, []byte) (leg, cargo, error) { return "", cargo{}, errTest },
		"panic":         func(int, string, []byte) (leg, cargo, error) { panic(errTest) },
		"unknown state": func(int, string, []byte) (leg, cargo, error) { return "mars", cargo{}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var said tally
				r := b.start(flowOf("f", snoozing(1, &said)))
				id := r.trigger("f", cargo{})
				synctest.Wait()
				b.kill()
				time.Sleep(time.Hour)
				next := snoozing(2, &said)
				next.Migrate = migrate
				r = b.start(flowOf("f", next))
				_, err := r.WaitRun(context.Background(), id)
				expectError(t, "WaitRun", err, segno.ErrStuck)
				want := map[string]string{"error": "went wrong", "panic": "went wrong", "unknown state": "mars"}[name]
				expect(t, "the reason has "+want, strings.Contains(r.info(id).StuckReason, want), true)
				expect(t, "data is untouched", string(r.info(id).Data), `{"n":1,"text":"slept"}`)
			})
		})
	}
}

func TestAStateTheWorkflowDoesNotKnowMakesTheRunStuck(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		ctx := context.Background()
		var said tally
		r := b.start(flowOf("f", snoozing(1, &said)))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.kill()
		time.Sleep(time.Hour)
		renamed := snoozing(1, &said)
		renamed.Steps[legC] = renamed.Steps[legB]
		delete(renamed.Steps, legB)
		change(renamed, legA, func(s *segno.Step[leg, cargo]) { s.Do = to(done) })
		r = b.start(flowOf("f", renamed))
		_, err := r.WaitRun(ctx, id)
		expectError(t, "WaitRun", err, segno.ErrStuck)
		expect(t, "the reason names the state", strings.Contains(r.info(id).StuckReason, `"b"`), true)
		entries := r.entries(id)
		expect(t, "the journal's cause", entries[len(entries)-1].Cause, "unknown_state")
		r.completed(r.trigger("f", cargo{}))
		r = b.restart(flowOf("f", snoozing(1, &said)))
		if err := r.ResumeRun(ctx, id); err != nil {
			t.Fatal(err)
		}
		r.completed(id)
	})
}

func TestDataThatCannotBeDecodedMakesTheRunStuck(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		ctx := context.Background()
		var said tally
		f := flowOf("f", snoozing(1, &said))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.stop()
		b.exec(`UPDATE _segno_run SET data = '{"n":"many"}'`)
		time.Sleep(time.Hour)
		r = b.start(f)
		_, err := r.WaitRun(ctx, id)
		expectError(t, "WaitRun", err, segno.ErrStuck)
		expect(t, "the reason", strings.Contains(r.info(id).StuckReason, "cannot be decoded"), true)
		expect(t, "streak", r.status("f").FailureStreak, 0)
		b.stop()
		b.exec(`UPDATE _segno_run SET data = '{"n":5,"text":"x"}'`)
		r = b.start(f)
		if err := r.ResumeRun(ctx, id); err != nil {
			t.Fatal(err)
		}
		r.completed(id)
	})
}

func TestARollbackOfAnotherVersionMigratesEachEntry(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		old := saga(2, &said, fail)
		change(old, "s2", func(s *segno.Step[leg, cargo]) {
			s.Undo, s.UndoRetry = func(context.Context, cargo) error { return errTest }, plain(3, time.Hour)
		})
		r := b.start(flowOf("f", old))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.stop()
		time.Sleep(time.Hour)

		next := route{
			Version: 7, Initial: "t1",
			Steps: legs{"t1": {Do: to(done)}, "t2": {Do: to(done)}, done: {Final: true}},
			Migrate: func(from int, state string, data []byte) (leg, cargo, error) {
				var c cargo
				err := json.Unmarshal(data, &c)
				c.Text = fmt.Sprint("from ", from)
				return leg("t" + state[1:]), c, err
			},
		}
		tries := 0
		for _, name := range []leg{"t1", "t2"} {
			change(next, name, func(s *segno.Step[leg, cargo]) {
				s.UndoRetry = plain(3, time.Minute)
				s.Undo = func(ctx context.Context, c cargo) error {
					if tries++; tries == 1 {
						return errTest
					}
					said.add("%s:%d:%s", name, c.N, c.Text)
					return nil
				}
			})
		}
		r = b.start(flowOf("f", next))
		e := r.ended(id, segno.RunFailed)
		expect(t, "undone, its UndoRetry in force", said.String(), "t2:2:from 0 t1:1:from 0")
		expect(t, "Err", e.Err.Error(), errTest.Error())
		expect(t, "undos called", tries, 3)
	})
}

func TestARollbackOfAnotherVersionWithoutMigrateIsStuck(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		ctx := context.Background()
		var said tally
		w := change(saga(2, &said, fail), "s2", func(s *segno.Step[leg, cargo]) {
			s.Undo, s.UndoRetry = func(context.Context, cargo) error { return errTest }, plain(2, time.Hour)
		})
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.stop()
		time.Sleep(time.Hour)
		next := saga(2, &said, fail)
		next.Version = 1
		r = b.start(flowOf("f", next))
		_, err := r.WaitRun(ctx, id)
		expectError(t, "WaitRun", err, segno.ErrStuck)
		r = b.restart(flowOf("f", saga(2, &said, fail)))
		if err := r.ResumeRun(ctx, id); err != nil {
			t.Fatal(err)
		}
		e := r.ended(id, segno.RunFailed)
		expect(t, "Err", e.Err.Error(), errTest.Error())
		expect(t, "undone", said.String(), "s2:2 s1:1")
		expect(t, "a stuck run is no failure with a RunError", errors.As(err, new(*segno.RunError)), false)
	})
}

func TestACancelledRunOfAnotherVersionIsTranslatedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		id := interrupted(b, uncertain(&said, hold, true, 0))
		b.exec("UPDATE _segno_run SET cancel = 1")
		w := uncertain(&said, hold, true, 0)
		w.Version, w.Migrate = 2, func(_ int, state string, data []byte) (leg, cargo, error) {
			var c cargo
			err := json.Unmarshal(data, &c)
			c.N += 100
			return leg(state), c, err
		}
		r := b.start(flowOf("f", w))
		r.ended(id, segno.RunCancelled)
		expect(t, "undone", said.String(), "s2:101:true:2 s1:101")
		expect(t, "version and data", fmt.Sprint(r.info(id).Version, string(r.info(id).Data)), `0{"n":1}`)
	})
}
