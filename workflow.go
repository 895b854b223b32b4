package segno

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/segnodev/segno/engine"
)

// State is a state's name: a string type of the program's own. The constant's
// text is what is stored, so rename the constant freely, but not its text.
type State interface{ ~string }

// A Workflow is the definition of a state machine: a plain value. Copy it,
// change a field, register the variant.
type Workflow[S State, D any] struct {
	// Version is stored with each run. A run of another version goes through
	// Migrate, or is stuck without it.
	Version int
	// Initial is the state of a run's first visit.
	Initial S
	// Timeout bounds a whole run, as a wall-clock deadline stored when the run
	// is created: it goes on while the program is down. 0: none.
	Timeout time.Duration
	// UndoTimeout bounds a rollback, counting only time in which a process works
	// on it, without the waits of parked retries; a restart begins it anew. 0:
	// half of Timeout, at most 30 s; none without a Timeout.
	UndoTimeout time.Duration
	// Steps is the table of states.
	Steps Steps[S, D]
	// KeepData keeps the data of every visit in the history. Without it the
	// history has what rollbacks need, the input and the result.
	KeepData bool
	// Migrate translates a run that was begun by another version, before any of
	// its code runs; during a rollback it is asked for each visit to be undone.
	Migrate func(from int, state string, data []byte) (S, D, error)
}

// Steps is a workflow's transition table.
type Steps[S State, D any] map[S]Step[S, D]

// DoFunc is what happens in a state. It may change the data, which is saved
// with the transition if it succeeds, and returns the next state. It runs at
// least once: make its effects on other systems idempotent with Info.Key.
type DoFunc[S State, D any] = func(context.Context, *D) (S, error)

// A Step says what happens in one state.
//
// An attempt is one call of Do: of a plain step, and of one poll or one waking of
// the models that wait. It goes in this order: the Limiter is asked for 1. If it
// refuses, the run waits without using up the attempt, from Options.ParkAfter on
// without a goroutine; if it can never give it, the visit fails without a retry.
// Then the Breaker is asked for a permit. If it is open, what the Limiter gave
// goes back to it and the visit fails at once, without a retry: the error matches
// ErrCircuitOpen and names the failure that opened it. Then Do is called under
// Timeout. Then the Breaker is told: success (a snooze is one) or failure; an
// attempt that exceeds its Timeout is a failure when it does. One that is cut
// short by a cancel, a Stop or the run's timeout is neither. Undo asks nobody.
type Step[S State, D any] struct {
	// Do is the state's code. Every state but a final one has it.
	Do DoFunc[S, D]
	// Undo takes back what Do did, when the run fails or is cancelled later, and
	// when Do returned a state that it may not go to. It gets the data as Do left
	// it. A unit of a step with an Undo is not interrupted by a cancel or by the
	// run's timeout.
	Undo func(context.Context, D) error
	// Next, where given, closes the set of states that Do may return.
	Next []S
	// Retry is the policy for failed attempts; the zero value tries once.
	Retry Retry
	// Timeout bounds one attempt, and one call of Undo (which without it has
	// 30 s). For Poll, Timer and Sleep it bounds the whole visit. 0: none.
	Timeout time.Duration
	// UndoRetry is the policy for failed undos; the zero value tries once.
	UndoRetry Retry
	// UndoUncertain calls Undo also for a visit whose last attempt ended without
	// a known outcome, or left data that cannot be stored, with Info.Uncertain set
	// and the data at its entry.
	UndoUncertain bool
	// Breaker stops the attempts while what the step needs is down; nil: none.
	Breaker *Breaker
	// Limiter spreads the attempts over time; nil: none.
	Limiter Limiter
	// Final ends the run here; everything else is zero.
	Final bool
}

// Retry says how often and how fast a failed attempt is repeated. Attempt
// number and due time are kept in the file.
type Retry struct {
	// Attempts is the number of attempts in all; 0 and 1 try once.
	Attempts int
	// Initial is the wait after the first failure; 0 means 100 ms.
	Initial time.Duration
	// Multiplier is the growth from one wait to the next; 0 means 2.
	Multiplier float64
	// MaxDelay is the longest wait, jitter included; 0 means 30 s.
	MaxDelay time.Duration
	// Jitter spreads each wait by ± this fraction; 0 means 0.1, negative none.
	Jitter float64
	// Panics repeats attempts that panicked, too.
	Panics bool
}

// impossible reports whether no policy has such values.
func (r Retry) impossible() bool {
	return r.Attempts < 0 || r.Initial < 0 || r.MaxDelay < 0 || !(r.Multiplier >= 0) || !(r.Jitter <= 1)
}

// Exponential tries at most n times in all, with waits of 100 ms, 200 ms,
// 400 ms, …, 30 s, each spread by a tenth.
func Exponential(n int) Retry { return Retry{Attempts: n} }

// Fixed tries at most n times in all, with a wait of d, spread by a tenth but
// never longer than d.
func Fixed(n int, d time.Duration) Retry {
	return Retry{Attempts: n, Initial: d, Multiplier: 1, MaxDelay: d}
}

// Definition is a Workflow of any types.
type Definition interface {
	compile() (*definition, error)
}

// definition is a compiled workflow.
type definition struct {
	machine *engine.Machine
	types   [2]reflect.Type
	states  []string
	zero    []byte
	// what guards its steps, in the order of the states' names
	breakers []*Breaker
	limiters []Limiter
	// encode makes the stored form of an input, checked against the data type.
	encode func(v any) ([]byte, error)
}

// same reports what distinguishes two definitions, "" if nothing does that matters.
func (d *definition) differs(o *definition) string {
	switch {
	case d.types != o.types:
		return fmt.Sprintf("types %v and %v", d.types, o.types)
	case len(o.states) == 0 || len(d.states) == 0: // an empty workflow checks the types only
		return ""
	case d.machine.Version != o.machine.Version:
		return fmt.Sprintf("versions %d and %d", d.machine.Version, o.machine.Version)
	case !slices.Equal(d.states, o.states):
		return fmt.Sprintf("states %v and %v", d.states, o.states)
	}
	return ""
}

// shape is what Bind compares; it does not ask that the workflow could run.
func (w Workflow[S, D]) shape() *definition {
	d := &definition{
		types:   [2]reflect.Type{reflect.TypeFor[S](), reflect.TypeFor[D]()},
		machine: &engine.Machine{Version: w.Version},
	}
	for s := range w.Steps {
		d.states = append(d.states, string(s))
	}
	slices.Sort(d.states)
	return d
}

// compile checks the workflow and erases its types.
func (w Workflow[S, D]) compile() (*definition, error) {
	d := w.shape()
	zero, err := json.Marshal(*new(D))
	if err = errors.Join(w.validate(), jsonable(d.types[1]), err); err != nil {
		return d, err
	}
	d.zero, d.encode = zero, encodeInput[D]
	m := d.machine
	m.Initial, m.Timeout, m.KeepData = string(w.Initial), w.Timeout, w.KeepData
	m.UndoTimeout, m.Steps = w.UndoTimeout, map[string]*engine.Step{}
	if m.UndoTimeout == 0 && w.Timeout > 0 {
		m.UndoTimeout = min(w.Timeout/2, 30*time.Second)
	}
	for _, name := range d.states {
		step := w.Steps[S(name)]
		m.Steps[name] = step.erase()
		if step.Breaker != nil {
			d.breakers = append(d.breakers, step.Breaker)
		}
		if step.Limiter != nil {
			d.limiters = append(d.limiters, step.Limiter)
		}
	}
	if w.Migrate != nil {
		m.Migrate = func(from int, state string, data []byte) (string, []byte, error) {
			s, d, err := w.Migrate(from, state, bytes.Clone(data))
			if err != nil {
				return "", nil, err
			}
			out, err := json.Marshal(d)
			return string(s), out, err
		}
	}
	return d, nil
}

// validate finds every fault of the table, in the order of the states' names.
func (w Workflow[S, D]) validate() error {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	if len(w.Steps) == 0 {
		fault("the workflow has no steps")
		return errors.Join(errs...)
	}
	if _, ok := w.Steps[w.Initial]; !ok {
		fault("Initial is %q, which is no state of the workflow", w.Initial)
	}
	if w.Timeout < 0 || w.UndoTimeout < 0 {
		fault("a workflow's timeouts cannot be negative")
	}
	finals := 0
	for _, name := range w.shape().states {
		step := w.Steps[S(name)]
		if step.Final {
			finals++
		}
		step.validate(name, w.Steps, fault)
	}
	if finals == 0 {
		fault("the workflow has no final state")
	}
	return errors.Join(errs...)
}

// validate finds every fault of one step.
func (s Step[S, D]) validate(name string, steps Steps[S, D], fault func(string, ...any)) {
	idle := s.Do == nil && s.Undo == nil && s.Next == nil && s.Timeout == 0 && s.Retry == (Retry{}) && s.UndoRetry == (Retry{}) &&
		s.Breaker == nil && s.Limiter == nil
	switch {
	case name == "":
		fault("a state's name is empty")
	case s.Final && !idle:
		fault("state %q is final and has other fields set; they would never be used", name)
	case !s.Final && s.Do == nil:
		fault("state %q has no Do and is not Final", name)
	}
	for _, next := range s.Next {
		if _, ok := steps[next]; !ok {
			fault("state %q names %q in Next, which is no state of the workflow", name, next)
		}
	}
	if s.Timeout < 0 {
		fault("state %q has a negative Timeout", name)
	}
	for _, r := range []Retry{s.Retry, s.UndoRetry} {
		if r.impossible() {
			fault("state %q has an impossible retry policy %+v", name, r)
		}
	}
	if s.UndoUncertain && s.Undo == nil {
		fault("state %q has UndoUncertain but no Undo", name)
	}
	if s.Breaker != nil {
		faulty(s.Breaker.check(), name, fault)
	}
	if s.Limiter != nil {
		faulty(s.Limiter.check(), name, fault)
	}
}

// faulty reports what is wrong with a part of a state.
func faulty(err error, name string, fault func(string, ...any)) {
	if err != nil {
		fault("state %q: %w", name, err)
	}
}

// erase takes the types off a step.
func (s Step[S, D]) erase() *engine.Step {
	e := &engine.Step{
		Retry: engine.Retry(s.Retry), UndoRetry: engine.Retry(s.UndoRetry),
		Timeout: s.Timeout, UndoUncertain: s.UndoUncertain, Final: s.Final,
	}
	for _, next := range s.Next {
		e.Next = append(e.Next, string(next))
	}
	if s.Do != nil {
		e.Do = guarded(eraseDo(s.Do), s.Breaker, s.Limiter)
	}
	if s.Undo != nil {
		e.Undo = func(ctx context.Context, data []byte) error {
			d, err := decode[D](data)
			if err != nil {
				return err
			}
			return s.Undo(ctx, d)
		}
	}
	return e
}

// eraseDo decodes the data for each attempt afresh, so that what a failed
// attempt changed is gone.
func eraseDo[S State, D any](do DoFunc[S, D]) func(context.Context, []byte) (string, []byte, error) {
	return func(ctx context.Context, data []byte) (string, []byte, error) {
		d, err := decode[D](data)
		if err != nil {
			return "", nil, err
		}
		next, err := do(ctx, &d)
		if err != nil && !isSnooze(err) {
			return "", nil, err
		}
		out, failed := json.Marshal(d)
		if failed != nil {
			return "", nil, Permanent(fmt.Errorf("%w: %w", engine.ErrUnencodable, failed))
		}
		return string(next), out, err
	}
}

func decode[D any](data []byte) (d D, err error) {
	if err := json.Unmarshal(data, &d); err != nil {
		return d, fmt.Errorf("%w into %T: %w", engine.ErrUndecodable, d, err)
	}
	return d, nil
}

// encodeInput makes the stored form of an input: a D as it is, anything else
// through JSON, where it must not have fields that D lacks.
func encodeInput[D any](v any) ([]byte, error) {
	if d, ok := v.(*D); ok && d != nil {
		v = *d
	}
	raw, err := json.Marshal(v)
	if _, ok := v.(D); ok && err == nil {
		return raw, nil
	}
	var d D
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		err = dec.Decode(&d)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the input is no %T: %w", ErrConfig, d, err)
	}
	return json.Marshal(d)
}
