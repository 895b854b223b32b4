package segno

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// persistent are the types whose exported fields and methods are features: what
// they do has to outlive a kill.
var persistent = []string{
	"Workflow", "Step", "Flow", "BackoffPolicy", "Retry", "Pause", "Resume", "Trigger", "Message", "Target",
	"Poll", "PollOptions", "Batch", "Stepped", "Stream", "Split", "Branch", "Await", "Call", "Breaker", "Bucket", "Window", "Tiers", "Retention",
	"RunningScheduler", "BoundFlow",
}

// unswept are the features that no crash sweep uses, with the reason.
var unswept = map[string]string{
	".OpenReader":                      reads,
	".ResourceFrom":                    reads,
	"RunningScheduler.DB":              reads,
	"Flow.DST":                         "says which instants are slots, as the expression does; it keeps nothing of its own",
	"BackoffPolicy.Delay":              pure,
	"Bucket.Burst":                     inMemory,
	"Bucket.Remaining":                 inMemory,
	"Bucket.TryTake":                   inMemory,
	"Tiers.TryTake":                    "Take without the wait",
	"Tiers.Only":                       pure,
	"Window.TryTake":                   "Take without the wait",
	"Window.Remaining":                 reads,
	"Window.ResetsAt":                  reads,
	"Window.Used":                      reads,
	"BoundFlow.Get":                    reads,
	"RunningScheduler.Backup":          "writes to another file: see the tests of the store",
	"RunningScheduler.HasRunningFlows": reads,
	"RunningScheduler.Health":          reads,
	"RunningScheduler.ResourceHealth":  reads,
}

const (
	reads    = "only reads"
	pure     = "depends on its arguments alone"
	inMemory = "lives in memory only"
)

// TestSweepsCoverEveryFeature holds the list of what is killed at every commit
// against the exported names: a new one enters a sweep, or unswept with a reason.
func TestSweepsCoverEveryFeature(t *testing.T) {
	features, used := exportedFeatures(t), sweptNames(t)
	if len(features) < 100 {
		t.Fatalf("features: got = %d, want them all", len(features))
	}
	for _, f := range features {
		_, name, _ := strings.Cut(f, ".")
		switch reason := unswept[f]; {
		case used[name] && reason != "":
			t.Errorf("%s: got = a sweep that uses it, want none, for the reason %q", f, reason)
		case !used[name] && reason == "":
			t.Errorf("%s: got = no TestSweep that uses it, want one, or a reason in unswept", f)
		}
	}
	for f := range unswept {
		if !slices.Contains(features, f) {
			t.Errorf("unswept has %s: got = no such feature, want one", f)
		}
	}
	t.Logf("%d features, %d of them in no sweep", len(features), len(unswept))
}

// parsed returns the syntax of the package's files that the pattern matches.
func parsed(t *testing.T, pattern string, want func(name string) bool) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !want(name) {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// exportedFeatures lists the features as Type.Name, and the functions for steps as
// .Name.
func exportedFeatures(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	for _, f := range parsed(t, "*.go", func(name string) bool { return !strings.HasSuffix(name, "_test.go") }) {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if kind := receiver(d); d.Name.IsExported() && (kind == "" && isForSteps(d) || slices.Contains(persistent, kind)) {
					found[kind+"."+d.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					addFields(found, s)
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// receiver returns the name of a method's type, "" for a function.
func receiver(d *ast.FuncDecl) (name string) {
	if d.Recv == nil {
		return ""
	}
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && name == "" {
			name = id.Name
		}
		return true
	})
	return name
}

// isForSteps reports whether a function returns a DoFunc, or is called with the
// context of a step.
func isForSteps(d *ast.FuncDecl) (yes bool) {
	look := func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		yes = yes || ok && (id.Name == "DoFunc" || id.Name == "Context")
		return true
	}
	if d.Type.Results != nil {
		ast.Inspect(d.Type.Results, look)
	}
	if p := d.Type.Params.List; len(p) > 0 {
		ast.Inspect(p[0].Type, look)
	}
	return yes
}

// addFields adds the exported fields of a struct that is persistent.
func addFields(found map[string]bool, s ast.Spec) {
	ts, ok := s.(*ast.TypeSpec)
	if !ok || !slices.Contains(persistent, ts.Name.Name) {
		return
	}
	st, ok := ts.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, field := range st.Fields.List {
		for _, name := range field.Names {
			if name.IsExported() {
				found[ts.Name.Name+"."+name.Name] = true
			}
		}
	}
}

// sweptNames returns every name that a TestSweep uses, or a function or variable
// of the tests that it refers to.
func sweptNames(t *testing.T) map[string]bool {
	t.Helper()
	bodies, used := map[string][]ast.Node{}, map[string]bool{}
	var queue []string
	for _, f := range parsed(t, "*_test.go", func(string) bool { return true }) {
		for _, d := range f.Decls {
			for name, body := range declared(d) {
				bodies[name] = append(bodies[name], body)
				if strings.HasPrefix(name, "TestSweep") && name != t.Name() {
					queue = append(queue, name)
				}
			}
		}
	}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		for _, body := range bodies[name] {
			ast.Inspect(body, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok && !used[id.Name] {
					used[id.Name] = true
					queue = append(queue, id.Name)
				}
				return true
			})
		}
	}
	return used
}

// declared returns what a declaration declares, by name.
func declared(d ast.Decl) map[string]ast.Node {
	out := map[string]ast.Node{}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil { // methods of one name are many
			out[d.Name.Name] = d
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.ValueSpec:
				for _, name := range s.Names {
					out[name.Name] = s
				}
			case *ast.TypeSpec:
				out[s.Name.Name] = s
			}
		}
	}
	return out
}
