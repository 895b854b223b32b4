package segno_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// scenarios are the tests of one file, by the names of their rows.
type scenarios = map[string]func(*testing.T)

// referenceScenarios are all of them, a line per file.
func referenceScenarios() []scenarios {
	return []scenarios{
		referenceScheduler(),
		referenceControl(),
		referenceWorkflow(),
		referenceCancel(),
		allInTime(referenceObserver),
		referenceRecovery(),
		referenceResume(),
		referenceSaga(),
		referenceTask(),
		referenceRetry(),
		referencePoll(),
		referenceResource(),
		referenceError(),
		referenceResilience,
		allInTime(referenceSplit),
		allInTime(referenceBatch),
		referenceStepped,
		referenceStream,
		referenceModel,
		allInTime(referenceMetric),
	}
}

// TestReference runs the acceptance scenarios of the implementation that segno
// takes its behaviour from: testdata/reference.tsv lists them, docs/parity.md
// says which do not apply and why.
func TestReference(t *testing.T) {
	list, reasons := referenceRows(t), parityTable(t, "Rows that do not apply")
	tests := referenceTests(t)
	var ran, skipped atomic.Int64
	t.Cleanup(func() { // after the last of the parallel rows
		fmt.Printf("TestReference: %d rows run, %d with a reason, of %d\n", ran.Load(), len(reasons), len(list))
		if n := skipped.Load(); n > 0 && !testing.Short() {
			t.Errorf("rows that were skipped: got = %d, want 0: a row runs, or has a reason", n)
		}
	})
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		if _, ok := list[name]; !ok {
			t.Errorf("%s: it is no row of testdata/reference.tsv", name)
		}
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Skipped() {
					skipped.Add(1)
				} else {
					ran.Add(1)
				}
			})
			tests[name](t)
		})
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		_, runs := tests[name]
		_, excused := reasons[name]
		switch {
		case runs && excused:
			t.Errorf("%s: it runs, and docs/parity.md says that it does not apply", name)
		case !runs && !excused:
			t.Errorf("%s: it neither runs nor has a reason in docs/parity.md", name)
		}
	}
}

func TestTheParityTablesNameRowsThatExist(t *testing.T) {
	list, tests := referenceRows(t), referenceTests(t)
	for name := range parityTable(t, "Rows that do not apply") {
		if _, ok := list[name]; !ok {
			t.Errorf("a reason is given for %s, which is no row", name)
		}
	}
	for name := range parityTable(t, "Rows that hold differently") {
		if tests[name] == nil {
			t.Errorf("a difference is given for %s, which has no test", name)
		}
	}
}

func TestTheParityItemsNameTestsThatExist(t *testing.T) {
	var source strings.Builder
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source.WriteString(read(t, file))
	}
	list := referenceRows(t)
	_, items, _ := strings.Cut(read(t, "docs/parity.md"), "\n## Every public item\n")
	for _, line := range strings.Split(items, "\n") {
		if cells := strings.Split(strings.Trim(line, "|"), "|"); len(cells) == 3 {
			for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(cells[2], -1) {
				expect(t, name+" exists", strings.Contains(source.String(), "func "+name+"("), true)
			}
			for _, row := range regexp.MustCompile(`\b[A-Z]\d\d\w*`).FindAllString(cells[2], -1) {
				expect(t, row+" is a row", list[row] != "", true)
			}
		} else if strings.HasPrefix(line, "|") {
			t.Errorf("docs/parity.md: got line %q, want three columns", line)
		}
	}
}

// referenceTests merges the files' scenarios.
func referenceTests(t *testing.T) scenarios {
	t.Helper()
	all := scenarios{}
	for _, file := range referenceScenarios() {
		for name, test := range file {
			if all[name] != nil {
				t.Errorf("%s: it is there twice", name)
			}
			all[name] = test
		}
	}
	return all
}

// referenceRows returns "table id" by the name of the row's test, which is id_name.
func referenceRows(t *testing.T) map[string]string {
	t.Helper()
	word := regexp.MustCompile(`^[A-Z]\d\d_[a-z0-9_]+$`)
	rows := map[string]string{}
	lines := strings.Split(strings.TrimSpace(read(t, "testdata/reference.tsv")), "\n")
	for _, line := range lines[1:] { // the first one names the columns
		cells := strings.Split(line, "\t")
		if len(cells) != 6 || !strings.Contains("engine tasks", cells[0]) || !strings.Contains("TCND", cells[3]) {
			t.Fatalf("testdata/reference.tsv: got line %q, want table, id, name, source, scenario, expected", line)
		}
		name := cells[1] + "_" + cells[2]
		if rows[name] != "" || !word.MatchString(name) {
			t.Errorf("testdata/reference.tsv: %s is there twice, or is no name", name)
		}
		rows[name] = cells[0] + " " + cells[1]
	}
	return rows
}

// parityTable returns the table under a heading of docs/parity.md: the second
// column by the first.
func parityTable(t *testing.T, heading string) map[string]string {
	t.Helper()
	section := between(read(t, "docs/parity.md")+"\n## ", "\n## "+heading+"\n", "\n## ")
	rows := map[string]string{}
	for _, line := range strings.Split(section, "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		name := strings.TrimSpace(cells[0])
		if len(cells) != 2 || name == "row" || strings.Trim(name, "-") == "" {
			continue
		}
		if rows[name] != "" || strings.TrimSpace(cells[1]) == "" {
			t.Errorf("docs/parity.md, %s: %s is there twice, or without a text", heading, name)
		}
		rows[name] = strings.TrimSpace(cells[1])
	}
	return rows
}
