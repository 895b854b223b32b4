package segno

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strconv"
	"time"

	"github.com/segnodev/segno/engine"
)

// ItemPolicy says what an item that fails means for its Stream: FailFast,
// SkipItem or Tolerate(n).
type ItemPolicy int

const (
	// FailFast fails the window, and with it the attempt.
	FailFast ItemPolicy = 0
	// SkipItem goes on without the item.
	SkipItem ItemPolicy = -1
)

// Tolerate goes on without the item, unless it is the one beyond n failed items
// in a row. Tolerate(0) is FailFast.
func Tolerate(n int) ItemPolicy { return ItemPolicy(max(n, 0)) }

// A Source is what a Stream reads, and what it does with it.
type Source[S State, D, C, I, O any] struct {
	// Open returns the items behind the cursor, nil meaning from the beginning.
	// It is called anew after a restart or a failed window. The sequence is read
	// in a goroutine of its own; its context ends with the visit. An error that
	// it yields is that of an item, for OnError.
	Open func(ctx context.Context, d D, from *C) (iter.Seq2[I, error], error)
	// Item works on one item and returns the cursor behind it. One that fails may
	// return that cursor, too: then it is not read again once it was passed over.
	Item func(ctx context.Context, item I) (O, C, error)
	// Flush does something with a window. Its changes of the data, its OnCommit
	// functions and the cursor are one commit. With stop the visit goes to next,
	// and Close is not called.
	Flush func(ctx context.Context, d *D, window []O) (next S, stop bool, err error)
	// Close says where to go when the source is exhausted.
	Close func(ctx context.Context, d *D) (S, error)
	// Count is the length of a window; both zero: 1.
	Count int
	// Every is the time after which a window is flushed as it is, unless it is
	// empty; 1 ms at least.
	Every time.Duration
	// OnError says what a failed item means; the zero value is FailFast.
	OnError ItemPolicy
}

const streamMemo = "segno.stream"

// streamState is what a Stream visit keeps.
type streamState struct {
	Windows int             `json:"n"`
	Cursor  json.RawMessage `json:"c,omitempty"` // none: from the beginning
	Failed  int             `json:"failed,omitempty"`
	Closing bool            `json:"closing,omitempty"`
}

// Stream reads a source window by window. Each window is a unit: the cursor is
// durable with its Flush, so a crash repeats the items of one window at most. A
// Stop flushes the window as it is. The cursor of the last window is durable
// before Close. Step.Timeout bounds each Item, and each Open, Flush and Close
// (an item beyond it has failed); Step.Retry repeats a failed window, with the
// source opened anew. C must be a type that JSON can carry.
func Stream[S State, D, C, I, O any](src Source[S, D, C, I, O]) DoFunc[S, D] {
	fault := errorOr(src.validate(), jsonable(reflect.TypeFor[C]()))
	if src.Count == 0 && src.Every == 0 {
		src.Count = 1
	}
	return func(ctx context.Context, d *D) (S, error) {
		v, _, err := visitFrom(ctx)
		if err != nil || fault != nil {
			return "", errorOr(err, Permanent(fault))
		}
		w := &streamWindow[S, D, C, I, O]{src: &src, visit: v, timeout: v.Disarm()}
		if w.state, _, err = LoadMemo[streamState](ctx, streamMemo); err == nil {
			err = v.Unit(strconv.Itoa(w.state.Windows + 1))
		}
		if err != nil {
			return "", err
		}
		return w.run(ctx, d)
	}
}

// validate finds every fault of the source.
func (src *Source[S, D, C, I, O]) validate() error {
	var errs []error
	if src.Open == nil || src.Item == nil || src.Flush == nil || src.Close == nil {
		errs = append(errs, fmt.Errorf("%w: a Source needs Open, Item, Flush and Close", ErrConfig))
	}
	if src.Count < 0 || src.Every < 0 {
		errs = append(errs, fmt.Errorf("%w: Source.Count is %d, Every is %v", ErrConfig, src.Count, src.Every))
	}
	if src.OnError < SkipItem {
		errs = append(errs, fmt.Errorf("%w: Source.OnError is %d", ErrConfig, src.OnError))
	}
	return errors.Join(errs...)
}

// A streamWindow is one unit of a Stream.
type streamWindow[S State, D, C, I, O any] struct {
	src     *Source[S, D, C, I, O]
	visit   *engine.Visit
	timeout time.Duration
	state   streamState

	out    []O
	moved  bool // the cursor is not where it was
	cursor C
	end    bool // of the source
}

// run reads one window and flushes it, or closes.
func (w *streamWindow[S, D, C, I, O]) run(ctx context.Context, d *D) (S, error) {
	if w.state.Closing {
		return within(ctx, w.visit, w.timeout, func(ctx context.Context) (S, error) { return w.src.Close(ctx, d) })
	}
	from, err := w.open(ctx, *d)
	if err == nil {
		err = w.fill(ctx, from)
	}
	if err != nil {
		return "", err
	}
	if len(w.out) > 0 {
		stop := false
		next, err := within(ctx, w.visit, w.timeout, func(ctx context.Context) (next S, err error) {
			next, stop, err = w.src.Flush(ctx, d, w.out)
			return next, err
		})
		if err != nil || stop {
			return next, err
		}
		w.state.Windows++
	}
	return "", w.commit()
}

// commit ends the unit: what it has come to is durable before the next one.
func (w *streamWindow[S, D, C, I, O]) commit() error {
	if !w.moved && !w.end { // nothing came before the visit had to end
		return errorOr(w.visit.Why(), goOn(false))
	}
	if w.moved {
		raw, err := json.Marshal(w.cursor)
		if err != nil {
			return Permanent(fmt.Errorf("encoding the cursor: %w", err))
		}
		w.state.Cursor = raw
	}
	w.state.Closing = w.end
	return errorOr(joinMemo(w.visit, streamMemo, w.state), goOn(true))
}

// within calls fn under a timeout, if there is one. A function that ignores the
// end of its context is left to the watchdog.
func within[R any](ctx context.Context, v *engine.Visit, d time.Duration, fn func(context.Context) (R, error)) (R, error) {
	if d <= 0 {
		return fn(ctx)
	}
	inner, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	stop := v.Bound(d + v.Grace())
	defer stop()
	r, err := fn(inner)
	if err != nil && inner.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w after %v: %w", context.DeadlineExceeded, d, err)
	}
	return r, err
}

// open returns the source, as the unit before has left it, or opened anew.
func (w *streamWindow[S, D, C, I, O]) open(ctx context.Context, d D) (*reading[I], error) {
	if r, ok := w.visit.Attached().(*reading[I]); ok {
		return r, nil
	}
	var from *C
	if w.state.Cursor != nil {
		if err := json.Unmarshal(w.state.Cursor, &w.cursor); err != nil {
			return nil, fmt.Errorf("%w: the cursor is no %T: %w", engine.ErrUndecodable, w.cursor, err)
		}
		c := w.cursor
		from = &c
	}
	scope, cancel := context.WithCancelCause(w.visit.Scope())
	seq, err := within(ctx, w.visit, w.timeout, func(ctx context.Context) (iter.Seq2[I, error], error) {
		unlink := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) }) // while it opens, the unit's end is its end
		seq, err := w.src.Open(scope, d, from)
		if err == nil && !unlink() {
			err = context.Cause(ctx)
		}
		return seq, err
	})
	if err != nil {
		cancel(nil)
		return nil, err
	}
	r := read(scope, cancel, seq, w.visit.Grace())
	return r, w.visit.Attach(r, r.close)
}

// fill reads items until the window is full, its time is up, the source is
// exhausted, or the visit has to end.
func (w *streamWindow[S, D, C, I, O]) fill(ctx context.Context, from *reading[I]) error {
	var tick <-chan time.Time
	if w.src.Every > 0 {
		t := time.NewTicker(max(w.src.Every, pollMin))
		defer t.Stop()
		tick = t.C
	}
	halt := w.visit.Halt()
	for w.src.Count == 0 || len(w.out) < w.src.Count {
		if w.visit.Why() != nil {
			return ctx.Err()
		}
		select {
		case <-tick: // goes before an item that is there
			if w.moved {
				return nil
			}
			continue
		default:
		}
		select {
		case <-tick:
			if w.moved {
				return nil
			}
		case <-halt:
		case <-ctx.Done():
			return context.Cause(ctx)
		case it, more := <-from.items:
			if !more {
				w.end = true
				return nil
			}
			if err := w.take(ctx, it); err != nil {
				return err
			}
		}
	}
	return context.Cause(ctx) // a window that was interrupted is not flushed any more
}

// take works on one item.
func (w *streamWindow[S, D, C, I, O]) take(ctx context.Context, it itemOr[I]) error {
	if it.fatal {
		return it.err
	}
	o, c, err := w.item(ctx, it)
	if err == nil {
		w.out, w.cursor, w.moved, w.state.Failed = append(w.out, o), c, true, 0
		return nil
	}
	if ctx.Err() != nil || w.visit.Interrupted(err) {
		return err
	}
	w.state.Failed++
	if w.src.OnError != SkipItem && w.state.Failed > int(w.src.OnError) {
		return err
	}
	if !reflect.ValueOf(&c).Elem().IsZero() {
		w.cursor, w.moved = c, true
	}
	return nil
}

// item calls Item. Its panic is an error like any other, if errors are passed over.
func (w *streamWindow[S, D, C, I, O]) item(ctx context.Context, it itemOr[I]) (o O, c C, err error) {
	if it.err != nil {
		return o, c, it.err
	}
	call := func(ctx context.Context) (struct{}, error) {
		o, c, err = w.src.Item(ctx, it.item)
		return struct{}{}, err
	}
	if w.src.OnError == FailFast {
		_, err = within(ctx, w.visit, w.timeout, call)
		return o, c, err
	}
	err = engine.Guard(func() error {
		_, err := within(ctx, w.visit, w.timeout, call)
		return err
	})
	return o, c, err
}

// itemOr is an item, or what is wrong with it.
type itemOr[I any] struct {
	item  I
	err   error
	fatal bool // the source itself has failed
}

// reading is an open source: a goroutine that reads it one item ahead.
type reading[I any] struct {
	items chan itemOr[I] // closed at the end of the source
	done  chan struct{}
	stop  context.CancelCauseFunc
	grace time.Duration
}

// read begins to read a sequence.
func read[I any](ctx context.Context, stop context.CancelCauseFunc, seq iter.Seq2[I, error], grace time.Duration) *reading[I] {
	r := &reading[I]{items: make(chan itemOr[I]), done: make(chan struct{}), stop: stop, grace: grace}
	go func() {
		defer close(r.done)
		send := func(it itemOr[I]) bool {
			select {
			case r.items <- it:
				return true
			case <-ctx.Done():
				return false
			}
		}
		err := fmt.Errorf("%w: the source called runtime.Goexit", ErrPanic)
		defer func() {
			if err == nil || send(itemOr[I]{err: err, fatal: true}) {
				close(r.items)
			}
		}()
		err = engine.Guard(func() error {
			for item, err := range seq {
				if !send(itemOr[I]{item: item, err: err}) {
					break
				}
			}
			return nil
		})
	}()
	return r
}

// close ends reading. A source that ignores its context is left behind.
func (r *reading[I]) close() {
	r.stop(nil)
	t := time.NewTimer(r.grace)
	defer t.Stop()
	select {
	case <-r.done:
	case <-t.C:
	}
}
