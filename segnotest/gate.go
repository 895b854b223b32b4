package segnotest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
)

// errKilled is what a dead incarnation gets for an answer.
var errKilled = errors.New("segnotest: killed")

// A kill is an instant between two commits.
type kill struct {
	commit int // counted from the last kill, or from the start
	after  bool
}

func (k kill) String() string {
	if k.after {
		return fmt.Sprintf("after commit %d", k.commit)
	}
	return fmt.Sprintf("before commit %d", k.commit)
}

// A gate stands before every commit of one incarnation, lets one through at a
// time, and kills the incarnation at one of them.
type gate struct {
	v     *variant
	fx    *Effects
	end   context.CancelCauseFunc // of Drive
	turn  chan struct{}           // a lock; a channel, since time stands still while a mutex is waited for
	dead  bool
	where string              // what was to be committed
	left  map[string][]string // the file at the kill
}

func newGate(v *variant, fx *Effects, end context.CancelCauseFunc) *gate {
	return &gate{v: v, fx: fx, end: end, turn: make(chan struct{}, 1)}
}

// commit is the crashpoint.Gate of the incarnation.
func (g *gate) commit(commit func() error) error {
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	if g.dead {
		return errKilled
	}
	v := g.v
	v.commits++
	v.since++
	if v.crashes == len(v.kills) || v.kills[v.crashes].commit != v.since {
		return commit()
	}
	// What the commit sets off must find a dead incarnation.
	g.dead, g.where = true, caller()
	g.fx.kill()
	if v.kills[v.crashes].after {
		_ = commit() // one that fails was to fail without the kill, too
	}
	v.crashes, v.since = v.crashes+1, 0
	g.left = v.contents()
	g.end(errKilled)
	return errKilled
}

// killed reports whether the incarnation is dead.
func (g *gate) killed() bool {
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	return g.dead
}

// caller names the functions that make the commit, to be read in a failure.
func caller() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	var names []string
	for more := true; more && len(names) < 4; {
		var f runtime.Frame
		f, more = frames.Next()
		name, ours := strings.CutPrefix(f.Function, "github.com/segnodev/segno")
		if ours && !strings.HasPrefix(name, "/store") && !strings.HasPrefix(name, "/segnotest") {
			names = append(names, strings.TrimLeft(name, "./"))
		}
	}
	return strings.Join(names, " < ")
}
