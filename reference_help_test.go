package segno_test

import (
	"testing"

	"github.com/segnodev/segno"
)

// inTime makes a row of the reference that runs in fake time.
func inTime(test func(t *testing.T)) func(*testing.T) {
	return func(t *testing.T) { inBubble(t, test) }
}

// atOnce makes a row of the reference that needs no time and no file.
func atOnce(test func(t *testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		t.Parallel()
		test(t)
	}
}

// builder is a scheduler that is never started.
func builder() *segno.Scheduler { return segno.New("never-opened.db", segno.Options{}) }
