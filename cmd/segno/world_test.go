package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// The workflows of the tests: each shows one kind of end.

type state string

const (
	begin  state = "begin"
	middle state = "middle"
	final  state = "final"
)

type load struct {
	Name  string `json:"name"`
	Mood  string `json:"mood,omitempty"` // what goes wrong, and how
	Done  int    `json:"done,omitempty"`
	Awake bool   `json:"awake,omitempty"`
}

func first(_ context.Context, d *load) (state, error) {
	d.Done++
	return middle, nil
}

func second(_ context.Context, d *load) (state, error) {
	switch d.Mood {
	case "fail", "dirty":
		return "", errors.New("the carrier refuses")
	case "sleepy":
		if !d.Awake {
			d.Awake = true
			return "", segno.Snooze(time.Hour)
		}
	}
	d.Done++
	return final, nil
}

func back(_ context.Context, d load) error {
	if d.Mood == "dirty" {
		return errors.New("the bank is closed")
	}
	return nil
}

var steps = segno.Workflow[state, load]{
	Version: 1,
	Initial: begin,
	Steps: segno.Steps[state, load]{
		begin:  {Do: first, Undo: back, Next: []state{middle}},
		middle: {Do: second, Retry: segno.Retry{Attempts: 2, Initial: time.Second, Jitter: -1}},
		final:  {Final: true},
	},
}

// world makes a file with a run of every kind, in fake time, and calls fn with
// its path when its owner has stopped.
func world(t *testing.T, fn func(t *testing.T, db string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		db := filepath.Join(t.TempDir(), "app.db")
		firstLife(t, db)
		secondLife(t, db)
		fn(t, db)
	})
}

// firstLife has a flow that the second does not know any more.
func firstLife(t *testing.T, db string) {
	t.Helper()
	s := segno.New(db, segno.Options{SmallWAL: true})
	must(t, s.Manual("old", steps))
	running, err := s.Start(t.Context())
	must(t, err)
	trigger(t, running, "old", load{Name: "left behind", Mood: "sleepy"})
	synctest.Wait()
	must(t, running.Stop(context.Background()))
}

func secondLife(t *testing.T, db string) {
	t.Helper()
	running := start(t, db)
	ctx := t.Context()
	time.Sleep(2 * time.Hour) // long enough for the run of the old flow to become due
	synctest.Wait()
	for _, in := range []load{{Name: "good"}, {Name: "bad", Mood: "fail"}, {Name: "worse", Mood: "dirty"}, {Name: "tired", Mood: "sleepy"}, {Name: "unwanted", Mood: "sleepy"}} {
		trigger(t, running, "orders", in)
		time.Sleep(10 * time.Second)
	}
	unwanted, err := running.FindRun(ctx, "orders", "unwanted")
	must(t, err)
	must(t, running.CancelRun(ctx, unwanted.ID))
	for range 2 {
		trigger(t, running, "flaky", load{Mood: "fail"})
		time.Sleep(10 * time.Second)
	}
	must(t, running.PauseFlow(ctx, "nightly", segno.Pause{Note: "until the audit is over", Actor: "ada"}))
	synctest.Wait()
	must(t, running.Stop(context.Background()))
}

// start opens the file with the flows that there are now.
func start(t *testing.T, db string) *segno.RunningScheduler {
	t.Helper()
	s := segno.New(db, segno.Options{SmallWAL: true})
	must(t, errors.Join(
		s.Every("sweep", steps, 30*time.Minute),
		s.Add(segno.Flow{ID: "orders", Workflow: steps, Overlap: segno.Allow(10), Backoff: segno.BackoffPolicy{Jitter: -1}}),
		s.Add(segno.Flow{ID: "flaky", Workflow: steps, Backoff: segno.BackoffPolicy{StreakLimit: 2, Jitter: -1}}),
		s.Cron("nightly", steps, "0 3 * * *"),
	))
	running, err := s.Start(context.Background())
	must(t, err)
	return running
}

func trigger(t *testing.T, running *segno.RunningScheduler, flow string, in load) segno.RunID {
	t.Helper()
	id, err := running.Trigger(t.Context(), flow, segno.Trigger{Input: in, Key: in.Name})
	must(t, err)
	return id
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// files are the names and bytes of a folder.
func files(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var b strings.Builder
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		b.WriteString(e.Name() + "\n")
		b.Write(raw)
	}
	return b.String()
}
