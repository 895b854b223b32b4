package segno

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"

	"github.com/segnodev/segno/engine"
)

const steppedMemo = "segno.stepped"

// cursor is what a Stepped visit keeps: how many of its steps are done, and
// where the next one begins.
type cursor struct {
	Done int             `json:"n"`
	At   json.RawMessage `json:"c"`
}

// Stepped calls fn again and again, as long as it returns more: each call is
// a unit of its own, given the cursor as the last one left it, first the zero
// C. Cursor, data and OnCommit functions are committed together before the next
// call, so a crash repeats one call at most. Step.Retry and Step.Timeout are
// those of each call, which is repeated with the same cursor. A call that
// returns more without moving the cursor is followed by a wait of 1 ms. C must
// be a type that JSON can carry.
func Stepped[S State, D, C any](fn func(context.Context, *D, *C) (next S, more bool, err error)) DoFunc[S, D] {
	fault := jsonable(reflect.TypeFor[C]())
	return func(ctx context.Context, d *D) (S, error) {
		v, _, err := visitFrom(ctx)
		if err != nil || fault != nil {
			return "", errorOr(err, Permanent(fault))
		}
		at, c, err := loadCursor[C](ctx)
		if err == nil {
			err = v.Unit(strconv.Itoa(at.Done + 1))
		}
		if err != nil {
			return "", err
		}
		next, more, err := fn(ctx, d, &c)
		if err == nil && !more {
			return next, nil
		}
		if err != nil && !isSnooze(err) {
			return "", err
		}
		moved, failed := at.move(c)
		if failed == nil {
			failed = joinMemo(v, steppedMemo, at)
		}
		if failed != nil {
			return "", failed
		}
		return "", errorOr(err, goOn(moved))
	}
}

// loadCursor returns where the visit stands.
func loadCursor[C any](ctx context.Context) (at cursor, c C, err error) {
	at, found, err := LoadMemo[cursor](ctx, steppedMemo)
	if err == nil && found {
		if err = json.Unmarshal(at.At, &c); err != nil {
			err = fmt.Errorf("%w: the cursor is no %T: %w", engine.ErrUndecodable, c, err)
		}
	}
	return at, c, err
}

// move notes that a step is done, and reports whether it has moved the cursor.
func (at *cursor) move(c any) (moved bool, err error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return false, Permanent(fmt.Errorf("encoding the cursor: %w", err))
	}
	moved = at.Done == 0 || !bytes.Equal(raw, at.At)
	at.Done, at.At = at.Done+1, raw
	return moved, nil
}

// goOn ends a unit of a visit that has more of them. One that has come no
// further must not spin.
func goOn(moved bool) error {
	s := &engine.Steer{Snooze: true, Progress: moved}
	if !moved {
		s.After = pollMin
	}
	return s
}
