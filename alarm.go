package segno

import (
	"sync"
	"time"
)

// alarm is what the dispatcher sleeps on: it rings at a set time, or at once
// when something earlier turns up.
type alarm struct {
	mu   sync.Mutex
	at   time.Time // when the sleeper will wake by itself; zero: it is awake
	ring chan struct{}
}

// sleep waits until the given time by the wall clock, at most for limit, until
// rung, or until stop is closed; it then reports false.
func (a *alarm) sleep(until, now time.Time, limit time.Duration, stop <-chan struct{}) bool {
	d := limit
	if !until.IsZero() {
		d = max(min(d, until.Sub(now)), 0)
	}
	a.mu.Lock()
	a.at = now.Add(d)
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.at = time.Time{}
		a.mu.Unlock()
	}()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-a.ring:
	case <-stop:
		return false
	}
	return true
}

// wake rings at once.
func (a *alarm) wake() {
	select {
	case a.ring <- struct{}{}:
	default:
	}
}

// before rings if the sleeper would wake only after t, or is awake and may
// have looked already.
func (a *alarm) before(t time.Time) {
	if t.IsZero() {
		return
	}
	a.mu.Lock()
	late := a.at.IsZero() || t.Before(a.at)
	a.mu.Unlock()
	if late {
		a.wake()
	}
}
