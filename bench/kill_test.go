package main

import (
	"os"
	"strings"
	"testing"
)

// TestMain is the processes that the program starts, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasSuffix(os.Args[1], "-child") {
		main()
		return
	}
	os.Exit(m.Run())
}

// What is killed goes on by itself, and all of it ends.
func TestKilledSubjectsGoOn(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts processes")
	}
	for _, v := range victims()[:2] { // the others wait for longer than a test may
		t.Run(v.name, func(t *testing.T) {
			a, err := v.once(t.TempDir(), 20)
			if err != nil {
				t.Fatal(err)
			}
			if a.open == 0 || a.stuck != 0 || a.first == never || a.all < a.first {
				t.Errorf("got = %+v, want all that was open at the kill to have ended", a)
			}
		})
	}
}
