package segno_test

import "testing"

// referenceScheduler are the rows S01 to S39 of the engine's table.
func referenceScheduler() scenarios {
	return scenarios{
		"S01_empty_builder": atOnce(func(t *testing.T) {
			s := builder()
			expect(t, "Len", s.Len(), 0)
			expect(t, "IsEmpty", s.IsEmpty(), true)
		}),
	}
}
