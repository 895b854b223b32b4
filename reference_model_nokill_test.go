//go:build !unix

package segno_test

import "testing"

// The kills need a system with SIGKILL.
func refSteppedKill(t *testing.T)  { t.Skip("no SIGKILL here") }
func refStreamKill(t *testing.T)   { t.Skip("no SIGKILL here") }
func refStreamTxKill(t *testing.T) { t.Skip("no SIGKILL here") }
