//go:build !unix

package segno_test

import "testing"

func referenceSigkill(t *testing.T) { t.Skip("there is no SIGKILL here") }
