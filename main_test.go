package segno

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails the package if a test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// StepClock makes the wall clock of a running scheduler differ from the time
// of the bubble by d. It is called before anything is due.
func (r *RunningScheduler) StepClock(d time.Duration) {
	clock := func() time.Time { return wallClock().Add(d) }
	r.now, r.eng.Now = clock, clock
}

// InHand returns how many goroutines are in runs at present.
func (r *RunningScheduler) InHand() int { return r.outstanding() }
