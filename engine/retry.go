package engine

import (
	"math"
	"math/rand/v2"
	"time"
)

// Retry says how often and how fast a failed attempt is repeated.
// Package segno documents the fields.
type Retry struct {
	Attempts   int
	Initial    time.Duration
	Multiplier float64
	MaxDelay   time.Duration
	Jitter     float64
	Panics     bool
}

// Delay returns the wait after the given number of failed attempts (1, 2, …),
// jitter drawn, never above the cap.
func (r Retry) Delay(failed int) time.Duration {
	curve := Curve{r.Initial, r.Multiplier, r.MaxDelay, r.Jitter}
	if curve.Initial == 0 {
		curve.Initial = 100 * time.Millisecond
	}
	if curve.MaxDelay == 0 {
		curve.MaxDelay = max(30*time.Second, curve.Initial)
	}
	return curve.Delay(failed)
}

// Curve is an exponential delay: Initial·Multiplier^(n-1), at most MaxDelay,
// spread by ±Jitter. A zero Multiplier is 2, a zero Jitter 0.1, a negative one none.
type Curve struct {
	Initial    time.Duration
	Multiplier float64
	MaxDelay   time.Duration
	Jitter     float64
}

// Delay returns the nth delay of the curve (n counts from 1), drawn once.
// It is never negative and never above MaxDelay, whatever the fields hold.
func (c Curve) Delay(n int) time.Duration {
	mult, jitter := c.Multiplier, c.Jitter
	if mult == 0 {
		mult = 2
	}
	if jitter == 0 {
		jitter = 0.1
	}
	limit := float64(c.MaxDelay)
	d := float64(c.Initial) * math.Pow(mult, float64(max(n, 1)-1))
	if math.IsNaN(d) || d > limit {
		d = limit
	}
	if jitter > 0 {
		d *= 1 + min(jitter, 1)*(2*rand.Float64()-1)
	}
	if d >= limit { // beyond 2^53 a float does not hold it exactly
		return max(0, c.MaxDelay)
	}
	return time.Duration(max(0, d))
}
