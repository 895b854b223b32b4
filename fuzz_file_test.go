package segno

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno/engine"
)

// A hostile run is one whose row, memo or signal somebody has overwritten.
type hostile struct {
	memo              fuzzMemo
	data, value, sent string
	id                RunID
}

// corpus returns the values of each input that is kept for a fuzz test.
func corpus(t *testing.T, fuzz string) (inputs [][]string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "fuzz", fuzz, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("corpus of %s: got = %d files, %v, want some", fuzz, len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var input []string
		for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[1:] {
			_, quoted, _ := strings.Cut(strings.TrimSuffix(line, ")"), "(")
			value, err := strconv.Unquote(quoted)
			if err != nil {
				t.Fatalf("%s: %q: %v", file, line, err)
			}
			input = append(input, value)
		}
		inputs = append(inputs, input)
	}
	return inputs
}

// hostiles are runs for every memo, with the corpus of the fuzz tests in their
// rows, and a good one of each kind for a neighbour.
func hostiles(t *testing.T) (runs []*hostile) {
	t.Helper()
	for _, m := range fuzzMemos {
		runs = append(runs, &hostile{memo: m, data: `{"N":1}`, value: m.good})
		for _, value := range []string{"\xff\x00", "null", `[null]`, `{"n":-1,"c":[]}`, `"2999-01-01T00:00:00Z"`} {
			runs = append(runs, &hostile{memo: m, data: `{"N":1}`, value: value})
		}
		for _, in := range corpus(t, "FuzzStoredRun") {
			runs = append(runs, &hostile{memo: m, data: in[1], value: m.good}, &hostile{memo: m, data: `{}`, value: in[2]})
		}
	}
	for _, in := range corpus(t, "FuzzStoredSignal") {
		runs = append(runs, &hostile{memo: fuzzMemo{state: "await", into: fuzzOf[json.RawMessage]}, data: "{}", sent: in[0] + " "})
	}
	return runs
}

// fuzzLife runs the workflow over a file, as one flow per state, for some hours.
func fuzzLife(t *testing.T, path string, fn func(*RunningScheduler)) {
	t.Helper()
	w := new(fuzzWork).workflow()
	s := New(path, Options{SmallWAL: true})
	for state := range w.Steps {
		if w.Initial = state; state != fuzzDone {
			if err := s.Add(Flow{ID: string(state), Workflow: w, Overlap: Allow(0)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := s.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	fn(r)
	if err := r.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

// overwrite puts what the hostile runs are made of in the place of what segno
// has written, as bytes that SQLite takes for text.
func overwrite(t *testing.T, path string, runs []*hostile) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(query string, args ...any) {
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	exec("BEGIN")
	const memo = "INSERT INTO _segno_memo (run, visit, key, value) VALUES (?, 1, ?, CAST(? AS TEXT))"
	for _, h := range runs {
		exec("UPDATE _segno_run SET data = CAST(? AS TEXT) WHERE run = ?", []byte(h.data), h.id)
		if h.memo.key != "" {
			exec(memo, h.id, h.memo.key, []byte(h.value))
		}
		for key, value := range h.memo.other {
			exec(memo, h.id, key, []byte(value))
		}
		if h.sent != "" {
			exec("INSERT INTO _segno_signal (run, name, payload, at) VALUES (?, 'go', CAST(? AS TEXT), 0)", h.id, []byte(h.sent))
		}
	}
	exec("COMMIT")
}

// A file in which somebody has overwritten data, memos and signals starts, runs
// what can be run, and says of the rest what is wrong with it.
func TestAFileOfHostileBytesHurtsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, runs, ctx := filepath.Join(t.TempDir(), "hostile.db"), hostiles(t), context.Background()
		fuzzLife(t, path, func(r *RunningScheduler) {
			for _, h := range runs {
				id, err := r.Trigger(ctx, string(h.memo.state), Trigger{At: time.Now().Add(time.Hour)})
				if h.id = id; err != nil {
					t.Fatal(err)
				}
			}
		})
		overwrite(t, path, runs)
		for life := range 2 {
			fuzzLife(t, path, func(r *RunningScheduler) {
				time.Sleep(3 * time.Hour)
				synctest.Wait()
				for _, h := range runs {
					h.check(t, r, life)
				}
			})
		}
	})
}

// check checks what has become of the run.
func (h *hostile) check(t *testing.T, r *RunningScheduler, life int) {
	t.Helper()
	run, err := r.Run(context.Background(), h.id)
	name := fmt.Sprintf("life %d, run %d, data %q, memo %q %q, signal %q", life, h.id, h.data, h.memo.key, h.value, h.sent)
	bad := json.Unmarshal([]byte(h.data), new(fuzzData)) != nil || h.memo.key != "" && json.Unmarshal([]byte(h.value), h.memo.into()) != nil
	switch {
	case err != nil:
		t.Errorf("%s: %v", name, err)
	case run.Cause == string(engine.CausePanic) || run.Crashes > 0:
		t.Errorf("%s: got = %s, %d crashes, %s", name, run.Status, run.Crashes, run.Error)
	case bad && (run.Status != RunStuck || !strings.Contains(run.StuckReason, "cannot be decoded")):
		t.Errorf("%s: got = %s %s %s, want stuck", name, run.Status, run.StuckReason, run.Error)
	case !bad && h.sent == "" && h.value == h.memo.good && run.Status != RunCompleted:
		t.Errorf("%s: got = %s %s %s, want completed", name, run.Status, run.StuckReason, run.Error)
	case h.sent != "" && run.Status != RunCompleted && run.Status != RunFailed:
		t.Errorf("%s: got = %s %s, want it over", name, run.Status, run.StuckReason)
	}
	if !bad {
		return
	}
	if _, err := r.WaitRun(context.Background(), h.id); !errors.Is(err, ErrStuck) {
		t.Errorf("%s: WaitRun: got = %v, want an ErrStuck", name, err)
	}
}
