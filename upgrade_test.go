package segno_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// Every schema that was ever released has a file in testdata, written by the
// program of that day in the middle of its work. Today's program must go on with
// each. CONTRIBUTING.md says how a new one is made.

// oldWait is long enough to be parked, and over when the file is next looked at.
const oldWait = 2 * time.Second

// an oldJob says which way its run goes, and keeps what it has passed.
type oldJob struct {
	Way   string
	Trail []string
}

// oldProgram is the program of that day, and with then unset the one that comes
// after it.
type oldProgram struct {
	then    bool
	release chan struct{} // lets go of what then executes
}

// hold keeps a step executing while the file is copied.
func (p *oldProgram) hold() {
	if p.then {
		<-p.release
	}
}

// workflow has a state for each thing that may be under way.
func (p *oldProgram) workflow() segno.Workflow[string, oldJob] {
	pass := func(o *oldJob, what, next string) (string, error) {
		o.Trail = append(o.Trail, what)
		return next, nil
	}
	return segno.Workflow[string, oldJob]{
		Version: 1, Initial: "begin",
		Steps: segno.Steps[string, oldJob]{
			"begin": {
				Do:   func(_ context.Context, o *oldJob) (string, error) { return pass(o, "begin", o.Way) },
				Undo: func(context.Context, oldJob) error { p.hold(); return nil },
			},
			"executes": {Do: func(_ context.Context, o *oldJob) (string, error) { p.hold(); return pass(o, "executes", "done") }},
			"sleeps":   {Do: segno.Sleep[oldJob](oldWait, "done")},
			"retries": {Retry: segno.Fixed(2, oldWait), Do: func(_ context.Context, o *oldJob) (string, error) {
				if p.then {
					return "", errors.New("not today")
				}
				return pass(o, "retries", "done")
			}},
			"fails": {Retry: segno.Fixed(1, 0), Do: func(context.Context, *oldJob) (string, error) { return "", errors.New("no good") }},
			"done":  {Final: true},
		},
	}
}

// oldWays are what runs are at when the file is copied, and how they end.
var oldWays = map[string]struct {
	then, now segno.RunStatus
	trail     string
}{
	"done":     {segno.RunCompleted, segno.RunCompleted, "begin"},
	"executes": {segno.RunRunning, segno.RunCompleted, "begin executes"},
	"sleeps":   {segno.RunParked, segno.RunCompleted, "begin"},
	"retries":  {segno.RunParked, segno.RunCompleted, "begin retries"},
	"fails":    {segno.RunUndoing, segno.RunFailed, "begin"},
}

// register adds a flow for the runs, and one for each way a flow may stand.
func (p *oldProgram) register(s *segno.Scheduler) error {
	long := segno.BackoffPolicy{Initial: oldWait, MaxDelay: oldWait, Jitter: -1}
	trips := long
	trips.StreakLimit = 1
	w, fails := p.workflow(), oldJob{Way: "fails"}
	alone := segno.Workflow[string, oldJob]{Initial: "fails", Steps: segno.Steps[string, oldJob]{"fails": w.Steps["fails"], "done": {Final: true}}}
	return errors.Join(
		s.Add(segno.Flow{ID: "orders", Workflow: w, Overlap: segno.Allow(0)}),
		s.Add(segno.Flow{ID: "backoff", Workflow: alone, Input: fails, Backoff: long}),
		s.Add(segno.Flow{ID: "tripped", Workflow: alone, Input: fails, Backoff: trips}),
		s.Add(segno.Flow{ID: "paused", Workflow: w, Schedule: segno.Every(time.Hour), Input: oldJob{Way: "done"}}),
		s.Add(segno.Flow{ID: "daily", Workflow: w, Schedule: segno.Cron("0 0 * * *"), Input: oldJob{Way: "done"}}),
	)
}

// TestMakeSchemaFile writes the file of today's schema, if it is told where to.
func TestMakeSchemaFile(t *testing.T) {
	path := os.Getenv("SEGNO_SCHEMA_FILE")
	if path == "" {
		t.Skip("SEGNO_SCHEMA_FILE says where the file goes")
	}
	ctx := t.Context()
	p := &oldProgram{then: true, release: make(chan struct{})}
	r := segnotest.Open(t, segno.Options{}, p.register)
	for way := range oldWays {
		if _, err := r.Trigger(ctx, "orders", segno.Trigger{Key: way, Input: oldJob{Way: way}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, flow := range []string{"backoff", "tripped"} {
		if _, err := r.Trigger(ctx, flow, segno.Trigger{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.PauseFlow(ctx, "paused", segno.Pause{Note: "over the holidays", Actor: "ada"}); err != nil {
		t.Fatal(err)
	}
	for !p.underWay(t, r) {
		time.Sleep(time.Millisecond)
	}
	if err := r.Backup(ctx, path); err != nil {
		t.Fatal(err)
	}
	close(p.release)
}

// underWay reports whether everything is as it is to be copied.
func (p *oldProgram) underWay(t *testing.T, r *segno.RunningScheduler) bool {
	t.Helper()
	for way, want := range oldWays {
		if run := oldRun(t, r, way); run.Status != want.then {
			return false
		}
	}
	for flow, want := range map[string]segno.Status{"backoff": segno.StatusBackoff, "tripped": segno.StatusTripped, "paused": segno.StatusCompleted} {
		if info, err := r.Status(t.Context(), flow); err != nil || info.Status != want {
			return false
		}
	}
	return true
}

func oldRun(t *testing.T, r *segno.RunningScheduler, way string) segno.RunInfo {
	t.Helper()
	run, err := r.FindRun(t.Context(), "orders", way)
	if err != nil {
		t.Fatalf("the run that %s: %v", way, err)
	}
	return run
}

func TestUpgrade(t *testing.T) {
	files, err := filepath.Glob("testdata/schema-*.db")
	if err != nil || len(files) == 0 {
		t.Fatalf("files of old schemas: got = %v, %v, want some", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".db"), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "app.db")
			content, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(path, content, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			p := &oldProgram{}
			r := segnotest.OpenFile(t, path, segno.Options{}, p.register)
			p.checkRuns(t, r)
			checkOldFlows(t, r)
		})
	}
}

// checkRuns waits for every run that was under way.
func (p *oldProgram) checkRuns(t *testing.T, r *segno.RunningScheduler) {
	t.Helper()
	for way, want := range oldWays {
		run, err := r.WaitRun(t.Context(), oldRun(t, r, way).ID)
		var failed *segno.RunError
		if err != nil && !errors.As(err, &failed) {
			t.Fatalf("the run that %s: %v", way, err)
		}
		var o oldJob
		if err := json.Unmarshal(run.Data, &o); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(o.Trail, " "); run.Status != want.now || got != want.trail {
			t.Errorf("the run that %s: got = %s %q, want %s %q", way, run.Status, got, want.now, want.trail)
		}
		history, err := r.History(t.Context(), run.ID)
		if err != nil || history[0].State != "begin" || history[len(history)-1].Kind != "end" {
			t.Errorf("history of the run that %s: got = %v, %v, want it from begin to end", way, history, err)
		}
	}
}

// checkOldFlows looks for what the flows must not have forgotten.
func checkOldFlows(t *testing.T, r *segno.RunningScheduler) {
	t.Helper()
	for flow, want := range map[string]string{
		"backoff": "streak 1, note \"\", runs 1", "tripped": "streak 1, note \"\", runs 1", "paused": "streak 0, note \"over the holidays\", runs 1",
	} {
		info, err := r.Status(t.Context(), flow)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("streak %d, note %q, runs %d", info.FailureStreak, info.PauseNote, info.RunCount); got != want {
			t.Errorf("flow %s: got = %s, want %s", flow, got, want)
		}
	}
}

// TestUpgradeFileOfTheNewestSchema fails when a migration comes without a file.
func TestUpgradeFileOfTheNewestSchema(t *testing.T) {
	migrations, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(migrations) == 0 {
		t.Fatalf("migrations: got = %v, %v, want some", migrations, err)
	}
	newest := "testdata/schema-" + filepath.Base(migrations[len(migrations)-1])[:4] + ".db"
	if _, err := os.Stat(newest); err != nil {
		t.Errorf("got = %v, want a file of the newest schema: SEGNO_SCHEMA_FILE=%s go test -run TestMakeSchemaFile .", err, newest)
	}
}
