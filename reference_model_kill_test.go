//go:build unix

package segno_test

import "testing"

func refSteppedKill(t *testing.T) { t.Skip("soon") }
