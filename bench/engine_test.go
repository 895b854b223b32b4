package main

import (
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// Each subject runs each step of each workflow once, in their order.
func TestSubjectsRunTheWorkflow(t *testing.T) {
	for _, s := range subjects {
		t.Run(s.name, func(t *testing.T) {
			var mu sync.Mutex
			ran := map[string][]string{}
			e, err := s.open(filepath.Join(t.TempDir(), "bench.db"), setup{flight: 10, work: func(id, step string) {
				mu.Lock()
				defer mu.Unlock()
				ran[id] = append(ran[id], step)
			}})
			if err != nil {
				t.Fatal(err)
			}
			var waits []func() error
			for _, id := range []string{"o-0", "o-1", "o-2", "o-3", "o-4", "o-5", "o-6", "o-7", "o-8", "o-9"} {
				wait, err := e.start(id)
				if err != nil {
					t.Fatal(err)
				}
				waits = append(waits, wait)
			}
			for _, wait := range waits {
				if err := wait(); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.close(); err != nil {
				t.Fatal(err)
			}
			if got, want := len(ran), len(waits); got != want {
				t.Fatalf("workflows that ran: got = %d, want = %d", got, want)
			}
			for id, got := range ran {
				if !slices.Equal(got, steps) {
					t.Errorf("steps of %s: got = %v, want = %v", id, got, steps)
				}
			}
		})
	}
}
