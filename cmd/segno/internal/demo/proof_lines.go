package demo

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// lines compares the facts and the counters with the input itself.
func (p *proof) lines(ctx context.Context) (string, error) {
	var bad faults
	seen, counted, err := p.ingested(ctx)
	if err != nil {
		return "", err
	}
	kinds := map[string]int{}
	for _, want := range p.facts {
		got := seen[want.Line]
		switch {
		case len(got) == 0:
			bad.add("line %d was not counted", want.Line)
		case len(got) > 1:
			bad.add("line %d was counted %d times", want.Line, len(got))
		case got[0] != want:
			bad.add("line %d is %+v in the input, %+v in the file", want.Line, want, got[0])
		}
		delete(seen, want.Line)
		kinds[want.Kind]++
	}
	for line := range seen {
		bad.add("line %d is not in the input", line)
	}
	for kind := range counted {
		kinds[kind] += 0
	}
	for kind, n := range kinds {
		if counted[kind] != n {
			bad.add("the counter of kind %s is %d, the input has %d", kind, counted[kind], n)
		}
	}
	return fmt.Sprintf("%s, %s (%s): facts, checksums and counters agree with it", p.name, many(len(p.facts), "line"), listKinds(kinds)), bad.err()
}

// listKinds lists kinds of lines, the most frequent first.
func listKinds(kinds map[string]int) string {
	names := slices.SortedFunc(maps.Keys(kinds), func(a, b string) int {
		return cmp.Or(cmp.Compare(kinds[b], kinds[a]), cmp.Compare(a, b))
	})
	for i, kind := range names {
		names[i] = thousands(kinds[kind]) + " " + kind
	}
	return strings.Join(names, ", ")
}

// ingested returns the facts that were written, by line, and the counters.
func (p *proof) ingested(ctx context.Context) (seen map[int][]fact, counted map[string]int, err error) {
	seen, counted = map[int][]fact{}, map[string]int{}
	err = p.rows(ctx, "SELECT line, kind, words, bytes, sum FROM demo_line", func(scan func(...any) error) error {
		var f fact
		err := scan(&f.Line, &f.Kind, &f.Words, &f.Bytes, &f.Sum)
		seen[f.Line] = append(seen[f.Line], f)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	err = p.rows(ctx, "SELECT kind, lines FROM demo_count", func(scan func(...any) error) error {
		var kind string
		var n int
		err := scan(&kind, &n)
		counted[kind] = n
		return err
	})
	return seen, counted, err
}
