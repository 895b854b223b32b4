package segno_test

import (
	"os"
	"strings"
	"testing"
)

// TestReadmeShowsTheTestedExample keeps the README's program equal to the one
// that is compiled and run as an Example.
func TestReadmeShowsTheTestedExample(t *testing.T) {
	source := read(t, "example_test.go")
	_, code, _ := strings.Cut(source, "// README: begin\n")
	code, _, _ = strings.Cut(code, "// README: end\n")
	if shown := between(read(t, "README.md"), "```go\n", "```"); strings.TrimSpace(shown) != strings.TrimSpace(code) {
		t.Errorf("the README's program differs from example_test.go:\n got = %s\nwant = %s", shown, code)
	}
}

// TestReadmeListsTheDirectDependencies keeps the table complete.
func TestReadmeListsTheDirectDependencies(t *testing.T) {
	readme := read(t, "README.md")
	direct := between(read(t, "go.mod"), "require (\n", ")")
	for _, line := range strings.Split(direct, "\n") {
		module, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if module != "" && !strings.HasSuffix(line, "// indirect") && !strings.Contains(readme, "`"+module+"`") {
			t.Errorf("the README's dependency table does not name %s", module)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func between(s, from, to string) string {
	_, s, _ = strings.Cut(s, from)
	s, _, _ = strings.Cut(s, to)
	return s
}
