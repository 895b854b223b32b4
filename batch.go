package segno

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/segnodev/segno/engine"
)

// BatchOptions are the options of Batch. The zero value takes one item at a
// time, each once.
type BatchOptions struct {
	// Concurrency is how many items are in work at the same time; 0 means 1.
	Concurrency int
	// Retry is the policy for each item by itself.
	Retry Retry
	// KeepSettled keeps the items and what has become of them when finish fails
	// and the step is retried. Without it, the whole batch begins anew.
	KeepSettled bool
}

const batchMemo = "segno.batch"

// Batch loads items, works on each, and finishes with all of them, in the order
// in which they were loaded. The items and what becomes of each are made
// durable one by one, with the OnCommit functions of load and item, so a crash
// repeats only the items that were in work. An item that fails, after its
// retries, or panics, or cannot be encoded, is a Settled with an error, and none
// of the others' affair: it is finish that decides. Between two items the batch
// looks for a stop or a cancel. Step.Retry and Step.Timeout are those of the
// whole batch; while it has no Timeout, a batch of which every item waits for
// its retry gives up its goroutine. I and O must be types that JSON can carry.
func Batch[S State, D, I, O any](load func(context.Context, D) ([]I, error), item func(context.Context, I) (O, error),
	finish func(context.Context, *D, []Settled[O]) (S, error), o ...BatchOptions) DoFunc[S, D] {
	opts := first(o)
	fault := errorOr(jsonable(reflect.TypeFor[I]()), errorOr(jsonable(reflect.TypeFor[O]()), opts.validate()))
	if load == nil || item == nil || finish == nil {
		fault = errorOr(fault, fmt.Errorf("%w: a function of a Batch is nil", ErrConfig))
	}
	return func(ctx context.Context, d *D) (S, error) {
		v, _, err := visitFrom(ctx)
		if err != nil || fault != nil {
			return "", errorOr(err, Permanent(fault))
		}
		round, err := roundOf(ctx, v, batchMemo, opts.KeepSettled)
		if err != nil {
			return "", err
		}
		items, err := loadItems(ctx, round.memo, func(ctx context.Context) ([]I, error) { return load(ctx, *d) })
		if err != nil {
			return "", round.goOn(err)
		}
		f := &fan[O]{
			visit: v, memo: round.memo, limit: max(opts.Concurrency, 1), retry: engine.Retry(opts.Retry),
			do: func(ctx context.Context, i int) (out O, err error) {
				in, err := decodeItem[I](items, i)
				if err != nil {
					return out, err
				}
				return item(ctx, in)
			},
		}
		if err := f.run(ctx, len(items)); err != nil {
			return "", err
		}
		settled, err := f.settled()
		if err != nil {
			return "", err
		}
		next, err := finish(ctx, d, settled)
		return next, round.goOn(err)
	}
}

// validate finds every fault of the options.
func (o BatchOptions) validate() error {
	var errs []error
	if o.Concurrency < 0 {
		errs = append(errs, fmt.Errorf("%w: BatchOptions.Concurrency is %d", ErrConfig, o.Concurrency))
	}
	if o.Retry.impossible() {
		errs = append(errs, fmt.Errorf("%w: BatchOptions.Retry is impossible: %+v", ErrConfig, o.Retry))
	}
	return errors.Join(errs...)
}

// loadItems returns the items of the round: those that were kept, or what load
// returns, once it is durable. Each attempt decodes its item afresh, so that what
// a failed one has changed is gone.
func loadItems[I any](ctx context.Context, memo string, load func(context.Context) ([]I, error)) ([]json.RawMessage, error) {
	items, found, err := LoadMemo[[]json.RawMessage](ctx, memo)
	if err != nil {
		return nil, err
	}
	if !found {
		return loadAnew(ctx, memo, load)
	}
	for i := range items {
		if _, err := decodeItem[I](items, i); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// loadAnew calls load, as a unit of its own, and keeps what it returns.
func loadAnew[I any](ctx context.Context, memo string, load func(context.Context) ([]I, error)) ([]json.RawMessage, error) {
	inner, part := engine.VisitFrom(ctx).Part(ctx, "load", memo+"/load/", InfoFrom(ctx).Attempt)
	defer part.Close()
	loaded, err := load(inner)
	if isSnooze(err) {
		return nil, errorOr(part.Settle(memo+"/load", []byte("null")), err)
	}
	if err != nil {
		return nil, err
	}
	items := make([]json.RawMessage, len(loaded))
	for i := range loaded {
		if items[i], err = encodeResult(loaded[i]); err != nil {
			return nil, fmt.Errorf("item %d: %w", i, err)
		}
	}
	raw, err := json.Marshal(items)
	if err != nil {
		return nil, err
	}
	return items, part.Settle(memo, raw)
}

// decodeItem returns an item as load has returned it.
func decodeItem[I any](items []json.RawMessage, i int) (in I, err error) {
	if err := json.Unmarshal(items[i], &in); err != nil {
		return in, fmt.Errorf("%w: item %d is no %T: %w", engine.ErrUndecodable, i, in, err)
	}
	return in, nil
}

// first returns the options that were given, or the zero ones.
func first[T any](o []T) (opts T) {
	if len(o) > 0 {
		opts = o[0]
	}
	return opts
}
