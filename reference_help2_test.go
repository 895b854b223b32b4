package segno_test

import (
	"context"
	"testing"

	"github.com/segnodev/segno"
)

// inRow makes a row of the reference that works on one file, in fake time.
func inRow(test func(t *testing.T, b *bed)) func(*testing.T) {
	return func(t *testing.T) {
		inBubble(t, func(t *testing.T) { test(t, newBed(t)) })
	}
}

// says is a step that notes a word and then does as given.
func says(said *tally, word string, f do) do {
	return func(ctx context.Context, c *cargo) (leg, error) {
		said.add("%s", word)
		return f(ctx, c)
	}
}

// line is a workflow of the states a, b and c, which note their names; b and c
// end as given.
func line(said *tally, b, c do) route {
	return route{Initial: legA, Steps: legs{
		legA: {Do: says(said, "a", to(legB))},
		legB: {Do: says(said, "b", b)},
		legC: {Do: says(said, "c", c)},
		done: {Final: true},
	}}
}

// unless holds until *alive, and then goes to next: a step that its process
// dies in until the test says otherwise.
func unless(alive *bool, next leg) do {
	return func(ctx context.Context, c *cargo) (leg, error) {
		if *alive {
			return next, nil
		}
		return hold(ctx, c)
	}
}

// many is a flow whose runs do not wait for one another.
func many(id string, w segno.Definition) segno.Flow {
	return segno.Flow{ID: id, Workflow: w, Overlap: segno.Allow(0), Backoff: segno.BackoffPolicy{Initial: -1}}
}
