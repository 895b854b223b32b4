package segno

import (
	"context"
	"encoding/json"
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
	fault := errorOr(jsonable(reflect.TypeFor[I]()), jsonable(reflect.TypeFor[O]()))
	return func(ctx context.Context, d *D) (S, error) {
		v, _, err := visitFrom(ctx)
		if err != nil || fault != nil {
			return "", errorOr(err, Permanent(fault))
		}
		memo := round(ctx, batchMemo, opts.KeepSettled)
		items, err := loadItems(ctx, memo, func(ctx context.Context) ([]I, error) { return load(ctx, *d) })
		if err != nil {
			return "", err
		}
		f := &fan[O]{
			visit: v, memo: memo, limit: max(opts.Concurrency, 1), retry: engine.Retry(opts.Retry),
			do: func(ctx context.Context, i int) (O, error) { return item(ctx, items[i]) },
		}
		if err := f.run(ctx, len(items)); err != nil {
			return "", err
		}
		settled, err := f.settled()
		if err != nil {
			return "", err
		}
		return finish(ctx, d, settled)
	}
}

// loadItems returns the items of the round: those that were kept, or what load
// returns, once it is durable.
func loadItems[I any](ctx context.Context, memo string, load func(context.Context) ([]I, error)) ([]I, error) {
	items, found, err := LoadMemo[[]I](ctx, memo)
	if err != nil || found {
		return items, err
	}
	v := engine.VisitFrom(ctx)
	inner, part := v.Part(ctx, "load", memo+"/load/", InfoFrom(ctx).Attempt)
	defer part.Close()
	if items, err = load(inner); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(items)
	if err != nil {
		return nil, Permanent(fmt.Errorf("encoding the items: %w", err))
	}
	if err := part.Settle(memo, raw); err != nil {
		return nil, err
	}
	// As they are read back after a crash.
	var kept []I
	if err := json.Unmarshal(raw, &kept); err != nil {
		return nil, Permanent(fmt.Errorf("decoding the items: %w", err))
	}
	return kept, nil
}

// first returns the options that were given, or the zero ones.
func first[T any](o []T) (opts T) {
	if len(o) > 0 {
		opts = o[0]
	}
	return opts
}
