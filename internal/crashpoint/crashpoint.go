// Package crashpoint carries a gate around every commit to a scheduler's Start,
// for tests that kill it there. It is how segnotest reaches the store without a
// hook in the public API.
package crashpoint

import "context"

// A Gate is called with every commit to be made. It calls commit or not; an
// error of its own is the end of the store.
type Gate func(commit func() error) error

type key struct{}

// With returns a context whose scheduler commits through the gate.
func With(ctx context.Context, g Gate) context.Context { return context.WithValue(ctx, key{}, g) }

// From returns the gate of the context, or nil.
func From(ctx context.Context) Gate {
	g, _ := ctx.Value(key{}).(Gate)
	return g
}
