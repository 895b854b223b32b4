package segno

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// Info is what a step may know of its visit.
type Info struct {
	Flow    string
	Run     RunID
	State   string
	Visit   int // counts the run's visits, from 1
	Attempt int // counts the attempts of this visit, from 1
	// Slot is the nominal firing time of a scheduled run, zero for a triggered one.
	Slot time.Time
	// Missed counts older slots that this run stands for; FirstMissed is the first of them.
	Missed      int
	FirstMissed time.Time
	// Key is the idempotency key to hand to other systems: equal on every retry
	// and resume of this visit, different for every other, and not repeated
	// when a backup is restored. In Undo it is the undone visit's key + "/undo".
	Key string
	// UndoOf, in Undo, is the Key that the Do to be undone had.
	UndoOf string
	// Uncertain says that an earlier attempt ended without a known outcome.
	Uncertain bool
}

// InfoFrom returns what a step may know of its visit, the zero Info outside of one.
func InfoFrom(ctx context.Context) Info {
	v := engine.VisitFrom(ctx)
	if v == nil {
		return Info{}
	}
	in := v.Info()
	return Info{
		Flow: in.Flow, Run: RunID(in.Run), State: in.State, Visit: in.Visit, Attempt: in.Attempt,
		Slot: in.Slot, Missed: in.Missed, FirstMissed: in.FirstMissed,
		Key: in.Key, UndoOf: in.UndoOf, Uncertain: in.Uncertain,
	}
}

// A Tx is the user's part in one of segno's transactions. It is valid only
// inside the function it is given to, which must do nothing slow and nothing
// but SQL, since every run waits for it, and which may be called more than
// once: its effects on the file happen once, those outside would not.
// BEGIN, COMMIT, ROLLBACK, SAVEPOINT, RELEASE, ATTACH and PRAGMA are refused
// with ErrTx. Rows left open are closed when the function returns.
type Tx interface {
	Exec(query string, args ...any) (sql.Result, error)
	Query(query string, args ...any) (*sql.Rows, error)
	QueryRow(query string, args ...any) *sql.Row
	// Trigger creates a run in the same commit: see RunningScheduler.Trigger.
	Trigger(id string, t Trigger) (RunID, error)
}

// userTx lends the writer's transaction to one call of a function of the
// user's.
type userTx struct {
	tx   *store.Tx
	r    *RunningScheduler // nil before the scheduler runs
	over bool
}

// lend calls fn with a Tx that ends with the call.
func lend(tx *store.Tx, r *RunningScheduler, fn func(Tx) error) error {
	u := &userTx{tx: tx, r: r}
	defer func() { u.over = true }()
	return fn(u)
}

// use returns the transaction while it may be used.
func (u *userTx) use() (*store.Tx, error) {
	if u.over {
		return nil, fmt.Errorf("%w: the Tx was used outside its function", ErrTx)
	}
	return u.tx, u.tx.Usable()
}

// Exec runs a statement.
func (u *userTx) Exec(query string, args ...any) (sql.Result, error) {
	tx, err := u.use()
	if err != nil {
		return nil, err
	}
	return tx.Exec(query, args...)
}

// Query runs a query.
func (u *userTx) Query(query string, args ...any) (*sql.Rows, error) {
	tx, err := u.use()
	if err != nil {
		return nil, err
	}
	return tx.Query(query, args...)
}

// QueryRow runs a query for one row.
func (u *userTx) QueryRow(query string, args ...any) *sql.Row {
	if _, err := u.use(); err != nil {
		return u.tx.Refuse(err)
	}
	return u.tx.QueryRow(query, args...)
}

// Trigger creates a run in the same commit.
func (u *userTx) Trigger(id string, t Trigger) (RunID, error) {
	tx, err := u.use()
	if err != nil {
		return 0, err
	}
	if u.r == nil {
		return 0, fmt.Errorf("%w: nothing can be triggered before the scheduler has started", ErrConfig)
	}
	return u.r.triggerIn(tx, id, t)
}

type schedulerKey struct{}

// visitFrom returns the visit and the scheduler that a step's context belongs to.
func visitFrom(ctx context.Context) (*engine.Visit, *RunningScheduler, error) {
	v := engine.VisitFrom(ctx)
	r, _ := ctx.Value(schedulerKey{}).(*RunningScheduler)
	if v == nil {
		return nil, r, fmt.Errorf("%w: the context does not belong to a step", ErrConfig)
	}
	return v, r, nil
}

// OnCommit joins fn to the commit that settles the unit in flight, so that its
// writes happen exactly once, together with the transition; they are dropped
// if the unit fails. An error or panic of fn fails the attempt, as if the step
// had returned it. It returns ErrEnded once the attempt is over, and ErrConfig
// outside a step.
func OnCommit(ctx context.Context, fn func(tx Tx) error) error {
	v, r, err := visitFrom(ctx)
	if err != nil {
		return err
	}
	return v.OnCommit(func(tx engine.Tx) error { return lend(tx.(*store.Tx), r, fn) })
}

// SaveMemo makes a small value of the visit durable at once, in place of the
// one saved under the same key before. It is seen by later attempts of the
// visit, after a crash too, and gone when the visit is closed.
func SaveMemo(ctx context.Context, key string, v any) error {
	visit, _, err := visitFrom(ctx)
	if err == nil && strings.HasPrefix(key, ownMemo) {
		err = fmt.Errorf("%w: memo %q: keys that begin with %q are segno's own", ErrConfig, key, ownMemo)
	}
	if err != nil {
		return err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: memo %q: %w", ErrConfig, key, err)
	}
	return visit.SaveMemo(ctx, key, raw)
}

// ownMemo begins the keys of the memos that the processing models keep.
const ownMemo = "segno."

// LoadMemo returns the value that SaveMemo saved in this visit, and whether
// there is one. A step that returns the error of a value that is no T makes the
// run stuck, as data does that cannot be decoded.
func LoadMemo[T any](ctx context.Context, key string) (v T, found bool, err error) {
	visit, _, err := visitFrom(ctx)
	if err != nil {
		return v, false, err
	}
	raw, found, err := visit.LoadMemo(ctx, key)
	if err != nil || !found {
		return v, false, err
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, false, fmt.Errorf("%w: memo %q is no %T: %w", engine.ErrUndecodable, key, v, err)
	}
	return v, true, nil
}

// joinMemo writes a memo with the commit that settles the unit in flight.
func joinMemo(visit *engine.Visit, key string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return visit.JoinMemo(key, raw)
}

// Permanent makes an error that is not retried, whatever the step's policy.
func Permanent(err error) error {
	if err == nil {
		err = errors.New("segno: permanent failure")
	}
	return &engine.Steer{Err: err, Permanent: true}
}

// RetryAfter makes an error whose retry is due after d instead of the policy's
// wait. It counts as an attempt like any other.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		err = errors.New("segno: asked to be called again")
	}
	return &engine.Steer{Err: err, After: max(d, time.Microsecond)} // zero would be the policy's wait
}

// Snooze leaves the state as it is and calls the step again after d. The unit
// has succeeded: data, memos and OnCommit functions are committed with the due
// time, and the attempt number returns to 1. From Options.ParkAfter (1 s) on
// the run gives up its goroutine meanwhile.
func Snooze(d time.Duration) error {
	return &engine.Steer{Snooze: true, After: max(d, time.Millisecond)}
}

// SnoozeUntil is Snooze to an instant of the wall clock.
func SnoozeUntil(t time.Time) error {
	return &engine.Steer{Snooze: true, Until: t}
}

func isSnooze(err error) bool {
	var s *engine.Steer
	return errors.As(err, &s) && s.Snooze
}
