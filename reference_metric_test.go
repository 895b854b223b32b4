package segno_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// referenceMetric are the acceptance scenarios about metrics: what a collector
// counts of the events, since segno counts nothing itself.
var referenceMetric = map[string]func(*testing.T){
	"O07_metrics_run":    refMetricsRun,
	"O08_metrics_loop":   refMetricsLoop,
	"O09_metrics_models": refMetricsModels,
}

// counted counts events by kind, and with a unit's name or without.
func counted(w *segnotest.Recorder, kind segno.EventKind, unit bool) (n int) {
	for _, e := range w.Kind(kind) {
		if (e.Unit != "") == unit {
			n++
		}
	}
	return n
}

func refMetricsRun(t *testing.T) {
	b, w := watched(t)
	slow := func(ctx context.Context, _ *cargo) (leg, error) {
		time.Sleep(time.Minute)
		return done, nil
	}
	r := b.start(flowOf("good", one(slow)), flowOf("bad", one(fail)))
	r.completed(r.trigger("good", cargo{}))
	r.ended(r.trigger("bad", cargo{}), segno.RunFailed)
	started, finished := w.Kind(segno.EventRunStarted), w.Kind(segno.EventRunFinished)
	expect(t, "runs in hand", len(started)-len(finished), 0)
	outcomes := map[segno.RunStatus]int{}
	for _, e := range finished {
		outcomes[e.Status]++
	}
	expect(t, "outcomes", fmt.Sprint(outcomes), "map[completed:1 failed:1]")
	expect(t, "duration", finished[0].At.Sub(started[0].At), time.Minute)
}

func refMetricsLoop(t *testing.T) {
	b, w := watched(t)
	r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: new(tries).failing(2), Retry: plain(3, time.Second)})))
	r.completed(r.trigger("f", cargo{}))
	expect(t, "failed attempts", counted(w, segno.EventRetry, false)+counted(w, segno.EventTaskFailed, false), 2)
	expect(t, "completed attempts", counted(w, segno.EventTaskSucceeded, false), 1)
	expect(t, "refused by a breaker", counted(w, segno.EventCircuitOpen, false), 0)
}

func refMetricsModels(t *testing.T) {
	b, w := watched(t)
	item := func(_ context.Context, i int) (int, error) {
		if i == 2 {
			return 0, errors.New("bad item")
		}
		return i, nil
	}
	stream := segno.Source[leg, cargo, int, int, int]{
		Open: func(context.Context, cargo, *int) (iter.Seq2[int, error], error) {
			return func(yield func(int, error) bool) {
				for _, i := range []int{1, 2, 3, 4, 5} {
					if !yield(i, nil) {
						return
					}
				}
			}, nil
		},
		Item:  func(_ context.Context, i int) (int, int, error) { return i, i, nil },
		Flush: func(context.Context, *cargo, []int) (leg, bool, error) { return "", false, nil },
		Close: to(done),
		Count: 2,
	}
	r := b.start(flowOf("f", route{Initial: "batch", Steps: legs{
		"batch": {Do: segno.Batch(func(context.Context, cargo) ([]int, error) { return []int{1, 2, 3}, nil }, item,
			func(context.Context, *cargo, []segno.Settled[int]) (leg, error) { return "steps", nil })},
		"steps": {Do: segno.Stepped(func(_ context.Context, _ *cargo, at *int) (leg, bool, error) {
			*at++
			return "stream", *at < 3, nil
		})},
		"stream": {Do: segno.Stream(stream)},
		done:     {Final: true},
	}}))
	r.completed(r.trigger("f", cargo{}))
	expect(t, "items that succeeded", counted(w, segno.EventTaskSucceeded, true), 2)
	expect(t, "items that failed", counted(w, segno.EventTaskFailed, true), 1)
	var at []string // each checkpoint is a state entered, a step that has more, or a window
	for _, e := range w.Kind(segno.EventCheckpoint) {
		at = append(at, e.State)
	}
	expect(t, "steps", count(at, "steps"), 1+2)
	expect(t, "windows, and the end of the source", count(at, "stream"), 1+3)
}

// count counts a word.
func count(words []string, word string) int {
	return len(words) - len(slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == word }))
}
