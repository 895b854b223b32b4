package segno_test

import (
	"context"
	"testing"
)

func TestALinearRunIsOneCommitPerTransition(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		w := route{Initial: legA, Steps: legs{
			legA: {Do: func(_ context.Context, c *cargo) (leg, error) { c.N++; return legB, nil }},
			legB: {Do: func(_ context.Context, c *cargo) (leg, error) { c.N *= 10; return legC, nil }},
			legC: {Do: func(_ context.Context, c *cargo) (leg, error) { c.N += 3; return done, nil }},
			done: {Final: true},
		}}
		r := b.start(flowOf("f", w))
		before := b.commits.Load()
		id := r.trigger("f", cargo{N: 1})
		info := r.completed(id)
		expect(t, "commits of a 3-step run", b.commits.Load()-before, 4)
		expect(t, "data", string(info.Data), `{"n":23}`)
		expect(t, "state", info.State, "done")
		expect(t, "log", r.log(id), "enter a, enter b, enter c, end done")
	})
}
