// Package examples_test runs every example and compares what it prints.
package examples_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	// The programs are built by the go command, which the cache of test results
	// does not see: this lets a change of the library run them again.
	_ "github.com/segnodev/segno"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// limit is for one program; the slowest takes ten seconds.
const limit = time.Minute

// An example is a folder with a program.
type example struct {
	name string
	args []string
	// timed programs need a machine that does not stand still for two seconds, and
	// get a second chance.
	timed bool
}

var examples = []example{
	{name: "approval", args: []string{"-auto"}},
	{name: "batch"},
	{name: "breaker", timed: true},
	{name: "children"},
	{name: "cron", timed: true},
	{name: "poll"},
	{name: "saga"},
	{name: "split"},
	{name: "stream"},
}

func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("building and running the examples takes a quarter of a minute")
	}
	bin, runs := build(t), make([]*printed, len(examples))
	for i, e := range examples { // all at once: most of their time they sleep
		runs[i] = e.start(t, bin)
	}
	for i, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			got, golden := runs[i].wait(t), filepath.Join("testdata", e.name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want := read(t, golden)
			if got != want && e.timed {
				t.Logf("one more try, after\n%s", got)
				got = e.start(t, bin).wait(t)
			}
			if got != want {
				t.Errorf("output:\n got = %s\nwant = %s", got, want)
			}
		})
	}
}

// build builds all programs with one command, and returns their folder.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	// Without symbols the linker has half the work.
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", bin+string(filepath.Separator), "./...")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return bin
}

// printed is what a program prints, and what it leaves behind in its folders.
type printed struct {
	cmd         *exec.Cmd
	out, errOut bytes.Buffer
	temp        string
	done        chan struct{} // closed when it has ended
	err         error         // how, set before
}

// start starts a program in an empty folder.
func (e example) start(t *testing.T, bin string) *printed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	name := filepath.Join(bin, e.name)
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	p := &printed{cmd: exec.CommandContext(ctx, name, e.args...), temp: t.TempDir(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = &p.out, &p.errOut, t.TempDir()
	p.cmd.WaitDelay = time.Second // for a child that holds the pipes
	p.cmd.Env = append(os.Environ(), "TMPDIR="+p.temp, "TEMP="+p.temp, "TMP="+p.temp)
	go func() {
		defer close(p.done)
		p.err = p.cmd.Run()
	}()
	t.Cleanup(func() { // before the folders go
		cancel()
		<-p.done
	})
	return p
}

// wait returns what the program has printed, once it has ended as it should.
func (p *printed) wait(t *testing.T) string {
	t.Helper()
	<-p.done
	if p.err != nil || p.errOut.Len() > 0 {
		t.Fatalf("exit: got = %v, want 0\n%s%s", p.err, p.out.Bytes(), p.errOut.Bytes())
	}
	for _, dir := range []string{p.cmd.Dir, p.temp} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: got = %v (%v), want nothing", left, err)
		}
	}
	return normal(p.out.String())
}

var (
	instant  = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`)
	trailing = regexp.MustCompile(`(?m)[ \t\r]+$`)
)

// normal replaces what differs from run to run.
func normal(out string) string {
	return trailing.ReplaceAllString(instant.ReplaceAllString(out, "TIME"), "")
}

func TestEveryFolderIsAnExample(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var folders, names []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != "testdata" {
			folders = append(folders, e.Name())
		}
	}
	for _, e := range examples {
		names = append(names, e.name)
	}
	if !slices.Equal(folders, names) {
		t.Errorf("tested: got = %q, want every folder: %q", names, folders)
	}
}

// TestExamplesReadLikeATutorial holds their form: one file of moderate length,
// which says what it shows, how to run it and what to look at; and a line in
// both tables.
func TestExamplesReadLikeATutorial(t *testing.T) {
	tables := []string{read(t, "README.md"), read(t, filepath.Join("..", "README.md"))}
	for _, e := range examples {
		source := read(t, filepath.Join(e.name, "main.go"))
		doc, _, _ := strings.Cut(source, "\npackage main\n")
		for _, want := range []string{strings.ToUpper(e.name[:1]) + e.name[1:] + ": ", "go run ./examples/" + e.name, "sqlite3 "} {
			if !strings.Contains(doc, want) {
				t.Errorf("%s: its package comment does not say %q", e.name, want)
			}
		}
		if n := strings.Count(source, "\n"); n < 60 || n > 170 {
			t.Errorf("%s: got = %d lines, want 60 to 170", e.name, n)
		}
		for _, table := range tables {
			if !strings.Contains(table, "examples/"+e.name) {
				t.Errorf("%s: not in a table of examples", e.name)
			}
		}
		if entries, err := os.ReadDir(e.name); err != nil || len(entries) != 1 {
			t.Errorf("%s: got = %v (%v), want one file", e.name, entries, err)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(raw), "\r\n", "\n")
}
