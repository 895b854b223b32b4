// Package crashpoint carries what tests do to a scheduler's store to its Start:
// a gate around every commit, where they kill it, and settings of SQLite's, by
// which they show what weaker ones would lose. It is how segnotest and
// internal/powercut reach the store without a hook in the public API.
package crashpoint

import "context"

// A Gate is called with every commit to be made. It calls commit or not; an
// error of its own is the end of the store.
type Gate func(commit func() error) error

type (
	key       struct{}
	pragmaKey struct{}
)

// With returns a context whose scheduler commits through the gate.
func With(ctx context.Context, g Gate) context.Context { return context.WithValue(ctx, key{}, g) }

// From returns the gate of the context, or nil.
func From(ctx context.Context) Gate {
	g, _ := ctx.Value(key{}).(Gate)
	return g
}

// WithPragmas returns a context whose scheduler writes with other settings than
// its own, "synchronous = OFF" say: they are made when its own were checked.
func WithPragmas(ctx context.Context, pragmas ...string) context.Context {
	return context.WithValue(ctx, pragmaKey{}, pragmas)
}

// Pragmas returns the settings of the context.
func Pragmas(ctx context.Context) []string {
	p, _ := ctx.Value(pragmaKey{}).([]string)
	return p
}
