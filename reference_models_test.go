package segno_test

import (
	"maps"
	"slices"
	"testing"
)

// TestReferenceModels runs the rows about the processing models.
func TestReferenceModels(t *testing.T) {
	for _, rows := range []map[string]func(*testing.T){referenceStepped, referenceStream, referenceModel} {
		for _, name := range slices.Sorted(maps.Keys(rows)) {
			t.Run(name, rows[name])
		}
	}
}
