//go:build unix

package segno_test

import "testing"

func refSteppedKill(t *testing.T) { t.Skip("soon") }

func refStreamKill(t *testing.T)   { t.Skip("soon") }
func refStreamTxKill(t *testing.T) { t.Skip("soon") }
