//go:build unix

package segno_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// killCursors has one run that counts its cursor up to c.Runs, and one that
// reads as many numbers in windows of two; both write what they do to a table.
func killCursors(c *killChild) {
	opts := c.options()
	opts.Schema = toldSchema
	s := segno.New(c.Path, opts)
	work := func(ctx context.Context, what, text string) error {
		c.did(what, ctx, text)
		return errors.Join(killWork(ctx, c.Nap), tell(ctx, what+" "+text))
	}
	steps := map[string]killStep{
		"stepped": {Do: segno.Stepped(func(ctx context.Context, _ *killData, at *int) (killState, bool, error) {
			err := work(ctx, "step", fmt.Sprint(*at))
			*at++
			return "done", *at < c.Runs, err
		})},
		"stream": {Do: segno.Stream(segno.Source[killState, killData, int, int, int]{
			Open: func(_ context.Context, _ killData, from *int) (iter.Seq2[int, error], error) {
				return killNumbers(from, c.Runs), nil
			},
			Item: func(_ context.Context, i int) (int, int, error) { return i, i, nil },
			Flush: func(ctx context.Context, _ *killData, window []int) (killState, bool, error) {
				return "", false, work(ctx, "window", fmt.Sprint(window))
			},
			Close: func(context.Context, *killData) (killState, error) { return "done", nil },
			Count: 2,
		})},
	}
	for name, step := range steps {
		c.check(s.Manual(name, segno.Workflow[killState, killData]{Initial: "a", Steps: killSteps{"a": step, "done": {Final: true}}}))
	}
	r := c.start(s)
	for name := range steps {
		_, err := r.Trigger(context.Background(), name, segno.Trigger{Key: "1"})
		c.check(err)
	}
	c.finish(r)
}

// killNumbers are the numbers behind the cursor up to n.
func killNumbers(from *int, n int) iter.Seq2[int, error] {
	at := 0
	if from != nil {
		at = *from
	}
	return func(yield func(int, error) bool) {
		for i := at + 1; i <= n && yield(i, nil); i++ {
		}
	}
}

// refSteppedKill kills the program in the middle of a Stepped: the next one goes
// on at the cursor that is in the file.
func refSteppedKill(t *testing.T) {
	t.Parallel()
	rig := newKillRig(t, killPlan{Scenario: "cursors", Runs: 6, Nap: 150 * time.Millisecond})
	l := rig.start()
	l.until("step", 4)
	l.kill()
	var kept struct {
		At int `json:"c"`
	}
	memo := killValue[string](t, rig.plan.Path, "SELECT value FROM _segno_memo WHERE key = 'segno.stepped'")
	if err := json.Unmarshal([]byte(memo), &kept); err != nil || kept.At < 3 {
		t.Fatalf("the cursor in the file: got %s, %v, want 3 at least", memo, err)
	}
	l = rig.start()
	expect(t, "the first cursor behind the kill", l.until("step", 1).Text, fmt.Sprint(kept.At))
	l.ends()
	expect(t, "steps without a cursor", len(slices.DeleteFunc(rig.texts("step"), func(at string) bool { return at != "0" })), 1)
}

// texts returns what the events of a kind say, over all lives.
func (r *killRig) texts(what string) (all []string) {
	for _, e := range r.events {
		if e.What == what {
			all = append(all, e.Text)
		}
	}
	return all
}

// killStream kills the program again and again while it reads a stream, and
// returns the rig when all is done, and the windows that there are.
func killStream(t *testing.T) (rig *killRig, windows []string) {
	t.Helper()
	t.Parallel()
	rig = newKillRig(t, killPlan{Scenario: "cursors", Runs: 24, Nap: 10 * time.Millisecond})
	for range 3 {
		rig.start().strike("window", 1+rig.rand.IntN(4))
	}
	rig.start().ends()
	for i := 1; i < rig.plan.Runs; i += 2 {
		windows = append(windows, fmt.Sprint([]int{i, i + 1}))
	}
	return rig, windows
}

// refStreamKill: a window may come again behind a kill, but none is lost, and
// they come in their order.
func refStreamKill(t *testing.T) {
	rig, windows := killStream(t)
	expect(t, "windows", strings.Join(slices.Compact(rig.texts("window")), " "), strings.Join(windows, " "))
}

// refStreamTxKill: what a window writes to the file happens once.
func refStreamTxKill(t *testing.T) {
	rig, windows := killStream(t)
	db := killOpenFile(t, rig.plan.Path)
	defer db.Close()
	rows, err := queryLines(db, "SELECT what FROM told WHERE what LIKE 'window%' ORDER BY rowid")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "rows", strings.Join(rows, " "), "window "+strings.Join(windows, " window "))
}
