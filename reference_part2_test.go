package segno_test

import (
	"maps"
	"slices"
	"testing"
)

// TestReferencePart2 runs the rows of recovery, rollback and tasks.
func TestReferencePart2(t *testing.T) {
	for _, rows := range []map[string]func(*testing.T){
		referenceRecovery(), referenceResume(), referenceSaga(), referenceTask(), referenceRetry(), referencePoll(), referenceResource(), referenceError(),
	} {
		for _, name := range slices.Sorted(maps.Keys(rows)) {
			t.Run(name, rows[name])
		}
	}
}
