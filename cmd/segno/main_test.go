package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/segnodev/segno/cmd/segno/internal/demo"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestMain lets the test binary be the demo's worker, as the command is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == demo.WorkerCommand {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	_ = os.Unsetenv("SEGNO_DB")
	os.Exit(m.Run())
}

// result is what one command line came to.
type result struct {
	code        int
	out, errOut string
}

// segnoCommand runs one command line.
func segnoCommand(t *testing.T, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(""), &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

// golden compares what a command said with testdata, the path of the database
// aside.
func golden(t *testing.T, name, db string, r result) {
	t.Helper()
	got := r.out
	if r.errOut != "" {
		got += "--- stderr\n" + r.errOut
	}
	got = strings.ReplaceAll(got, db, "app.db")
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; make it with: go test ./cmd/segno -update", err)
	}
	if got != string(want) {
		t.Errorf("segno %s: got =\n%s\nwant (%s; go test ./cmd/segno -update, if the change is meant) =\n%s", name, got, file, want)
	}
}
