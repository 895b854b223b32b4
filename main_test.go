package segno

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails the package if a test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// SetClock makes the scheduler take the wall clock to differ from the time of
// the bubble by what the function says.
func (s *Scheduler) SetClock(ahead func() time.Duration) {
	s.now = func() time.Time { return wallClock().Add(ahead()) }
}

// SetBuilt makes the scheduler take the program to have been built at a time.
func (s *Scheduler) SetBuilt(at time.Time) { s.built = at }

// InHand returns how many goroutines are in runs at present.
func (r *RunningScheduler) InHand() int { return r.outstanding() }
