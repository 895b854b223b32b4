package store

import (
	"os"
	"path/filepath"
	"testing"
)

// The log is copied to the database when it is long, and used again.
func TestALongLogIsUsedAgain(t *testing.T) {
	s, err := tryOpen(filepath.Join(t.TempDir(), "a.db"), func(c *Config) { c.Pragmas = []string{"wal_autocheckpoint = 20"} })
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, s)
	for range 100 {
		addRun(t, s, "f")
	}
	st, err := os.Stat(s.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if pages := st.Size() / idlePage; pages > 100 {
		t.Errorf("pages of the log behind 100 commits: got = %d, want few more than 20", pages)
	}
}
