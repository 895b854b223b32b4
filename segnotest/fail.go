package segnotest

import (
	"context"
	"fmt"

	"github.com/segnodev/segno"
)

// FailTimes wraps a step's Do so that the first n attempts of each visit return
// err, and those behind them call do. It goes by Info.Attempt, which is kept in
// the file: a crash or a restart does not begin the count anew, but a Snooze
// does.
func FailTimes[S segno.State, D any](n int, err error, do segno.DoFunc[S, D]) segno.DoFunc[S, D] {
	return func(ctx context.Context, d *D) (S, error) {
		if segno.InfoFrom(ctx).Attempt <= n {
			return "", err
		}
		return do(ctx, d)
	}
}

// PanicTimes wraps a step's Do so that the first n attempts of each visit
// panic, and those behind them call do: see FailTimes. A panic is repeated only
// if Retry.Panics is set.
func PanicTimes[S segno.State, D any](n int, do segno.DoFunc[S, D]) segno.DoFunc[S, D] {
	return func(ctx context.Context, d *D) (S, error) {
		if attempt := segno.InfoFrom(ctx).Attempt; attempt <= n {
			panic(fmt.Sprintf("segnotest: attempt %d of %d that panic", attempt, n))
		}
		return do(ctx, d)
	}
}
