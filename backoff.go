package segno

import (
	"errors"
	"fmt"
	"time"

	"github.com/segnodev/segno/engine"
)

// A BackoffPolicy says what failed runs of a flow cost it: after the nth
// failure in a row the flow is not dispatched for Delay(n), and after
// StreakLimit failures not at all until it is reset. Streak, window and trip
// are kept in the file. The zero value is ready: 1 s, doubling up to 5 min,
// spread by a tenth, never tripping.
type BackoffPolicy struct {
	// Initial is the first delay: 0 means 1 s, -1 no window at all (the streak
	// is still counted).
	Initial time.Duration
	// Multiplier is the growth from one delay to the next; 0 means 2.
	Multiplier float64
	// MaxDelay is the longest delay, jitter included; 0 means 300 s, or Initial
	// if that is longer.
	MaxDelay time.Duration
	// Jitter spreads each delay by ± this fraction; 0 means 0.1, negative none.
	Jitter float64
	// StreakLimit is the number of failures in a row that trips the flow; 0
	// never trips, 1 trips at the first failure.
	StreakLimit int
}

// Delay returns the window after the given number of failures in a row, drawn
// anew at each call: min(Initial·Multiplier^(streak-1), MaxDelay), times
// 1 ± Jitter, and never above MaxDelay. A streak below 1 counts as 1.
func (p BackoffPolicy) Delay(streak int) time.Duration {
	if p.Initial < 0 {
		return 0
	}
	curve := engine.Curve{Initial: p.Initial, Multiplier: p.Multiplier, MaxDelay: p.MaxDelay, Jitter: p.Jitter}
	if curve.Initial == 0 {
		curve.Initial = time.Second
	}
	if curve.MaxDelay == 0 {
		curve.MaxDelay = max(300*time.Second, curve.Initial)
	}
	return curve.Delay(streak)
}

// trips reports whether the streak trips the flow.
func (p BackoffPolicy) trips(streak int) bool { return p.StreakLimit > 0 && streak >= p.StreakLimit }

// validate finds every fault of the policy.
func (p BackoffPolicy) validate() error {
	var errs []error
	fault := func(bad bool, text string, v any) {
		if bad {
			errs = append(errs, fmt.Errorf("%w: Backoff.%s is %v", ErrConfig, text, v))
		}
	}
	fault(p.Initial < -1, "Initial", p.Initial)
	fault(p.Multiplier < 0 || p.Multiplier != p.Multiplier, "Multiplier", p.Multiplier)
	fault(p.MaxDelay < 0, "MaxDelay", p.MaxDelay)
	fault(p.Jitter > 1 || p.Jitter != p.Jitter, "Jitter", p.Jitter)
	fault(p.StreakLimit < 0, "StreakLimit", p.StreakLimit)
	return errors.Join(errs...)
}
