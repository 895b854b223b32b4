//go:build unix

package segno_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// killSweep goes once through everything that is committed in the life of a
// run: transitions, retries, memos, parks, writes of its own, a rollback. The
// program dies at one of its commits.
func killSweep(c *killChild) {
	opts := c.options()
	opts.ParkAfter = 2 * time.Millisecond
	opts.Schema = func(tx segno.Tx) error {
		_, err := tx.Exec("CREATE TABLE IF NOT EXISTS effects (run INTEGER NOT NULL, visit INTEGER NOT NULL)")
		return err
	}
	c.arm()
	s := segno.New(c.Path, opts)
	c.check(s.Add(segno.Flow{ID: "jobs", Workflow: c.sweepFlow(), Overlap: segno.Allow(0), Backoff: segno.BackoffPolicy{Initial: -1}}))
	r := c.start(s)
	for _, name := range []string{"good", "bad"} {
		id, err := r.Trigger(context.Background(), "jobs", segno.Trigger{Key: name, Input: killData{Name: name}})
		c.check(err)
		c.say(killEvent{What: "ack", Run: id})
		_, _ = r.WaitRun(context.Background(), id)
	}
	c.check(r.Stop(context.Background()))
	c.say(killEvent{What: "commits", Visit: c.commitsMade()})
}

func (c *killChild) sweepFlow() segno.Workflow[killState, killData] {
	book := func(ctx context.Context) error {
		in := segno.InfoFrom(ctx)
		return segno.OnCommit(ctx, func(tx segno.Tx) error {
			_, err := tx.Exec("INSERT INTO effects (run, visit) VALUES (?, ?)", in.Run, in.Visit)
			return err
		})
	}
	undo := func(ctx context.Context, _ killData) error {
		c.did("undo", ctx)
		if segno.InfoFrom(ctx).Attempt == 1 {
			return errors.New("not now")
		}
		in := segno.InfoFrom(ctx)
		return segno.OnCommit(ctx, func(tx segno.Tx) error {
			_, err := tx.Exec("DELETE FROM effects WHERE run = ? AND visit = ?", in.Run, in.Visit)
			return err
		})
	}
	soon := segno.Fixed(2, time.Millisecond)
	return segno.Workflow[killState, killData]{Initial: "retry", Steps: killSteps{
		"retry": {Retry: soon, Undo: undo, UndoRetry: soon, Do: func(ctx context.Context, _ *killData) (killState, error) {
			c.did("do", ctx)
			if segno.InfoFrom(ctx).Attempt == 1 {
				return "", errors.New("not now")
			}
			return "park", book(ctx)
		}},
		"park": {Undo: undo, UndoRetry: soon, Do: func(ctx context.Context, d *killData) (killState, error) {
			n, _, err := segno.LoadMemo[int](ctx, "n")
			if err != nil {
				return "", err
			}
			c.say(killEvent{What: "poll", Run: segno.InfoFrom(ctx).Run, Text: fmt.Sprint(n)})
			d.Trail = append(d.Trail, fmt.Sprint(n))
			if n == 2 {
				return "last", book(ctx)
			}
			if err := segno.SaveMemo(ctx, "n", n+1); err != nil {
				return "", err
			}
			return "", segno.Snooze(5 * time.Millisecond)
		}},
		"last": {Do: func(ctx context.Context, d *killData) (killState, error) {
			c.did("do", ctx)
			if d.Name == "bad" {
				return "", errors.New("out of stock")
			}
			return "done", book(ctx)
		}},
		"done": {Final: true},
	}}
}

// TestKillAtCommits kills the program before and after its commits, one by one
// (a sample of them, unless SEGNO_LONG is set): a restart always comes to the
// same end.
func TestKillAtCommits(t *testing.T) {
	t.Parallel()
	rig := newKillRig(t, killPlan{Scenario: "sweep"})
	l := rig.start()
	commits := l.until("commits", 1).Visit
	l.ends()
	want := rig.sweepEnd()
	step := 1
	if !killLong {
		step = 5
	}
	t.Logf("%d commits; they end as %s", commits, want)
	if commits < 10 {
		t.Fatalf("got %d commits, want more to kill at", commits)
	}
	for at := 1 + rig.rand.IntN(step); at <= commits; at += step {
		for _, mode := range []string{"before", "after"} {
			rig := newKillRig(t, killPlan{Scenario: "sweep", At: at, Mode: mode})
			if !rig.start().died() {
				t.Logf("%s commit %d: there was none", mode, at)
				continue
			}
			rig.plan.At = 0
			rig.start().ends()
			if got := rig.sweepEnd(); got != want {
				t.Errorf("killed %s commit %d: got the end\n%s, want\n%s", mode, at, got, want)
			}
		}
	}
}

var killCrashes = regexp.MustCompile(`\bcrash `)

// sweepEnd is what must be the same whenever the program was killed.
func (r *killRig) sweepEnd() string {
	r.t.Helper()
	var b strings.Builder
	for _, name := range []string{"good", "bad"} {
		for id, h := range r.left {
			if !strings.Contains(h.data, name) {
				continue
			}
			fmt.Fprintf(&b, "%s: %s %s, %d effects, %s\n", name, h.status, h.err,
				killValue[int](r.t, r.plan.Path, "SELECT count(*) FROM effects WHERE run = ?", id),
				killCrashes.ReplaceAllString(h.kinds(), ""))
			if h.visit == 3 && h.data == "" {
				r.t.Errorf("run %d has no data", id)
			}
		}
	}
	return b.String()
}
