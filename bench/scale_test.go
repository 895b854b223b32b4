package main

import "testing"

// What waits and what was interrupted goes on in the process that is measured.
func TestCrowdsGoOn(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts processes")
	}
	dir := t.TempDir()
	if err := restart([]string{"-finished", "20", "-parked", "20", "-interrupted", "5", "-dir", dir}); err != nil {
		t.Errorf("restart: %v", err)
	}
	if err := parked([]string{"-runs", "20", "-at-once", "10", "-in", "9s", "-dir", dir}); err != nil {
		t.Errorf("parked: %v", err)
	}
}
