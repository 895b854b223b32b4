package demo

import (
	"context"
	"errors"
	"fmt"

	"github.com/segnodev/segno"
)

// transitions walks the journal of every run, from entry to entry as they are
// chained, and compares with all entries there are.
func (p *proof) transitions(ctx context.Context) (string, error) {
	var bad faults
	chains, sizes, err := p.journals(ctx)
	if err != nil {
		return "", err
	}
	total, visits, crashes := 0, 0, 0
	for i := range p.runs {
		run := &p.runs[i]
		chain := chains[run.ID]
		if err := followed(run, chain); err != nil {
			bad.add("run %d of %s: %w", run.ID, run.Flow, err)
		}
		if len(chain) != sizes[run.ID] {
			bad.add("run %d of %s: the journal has %d entries, its chain %d", run.ID, run.Flow, sizes[run.ID], len(chain))
		}
		total += len(chain)
		for _, e := range chain {
			visits += b2i(e.Kind == "enter")
			crashes += b2i(e.Kind == "crash")
		}
	}
	return fmt.Sprintf("%s, %s journal entries: %s, each one above the one before; %s went on after a kill",
		many(len(p.runs), "run"), thousands(total), many(visits, "visit"), many(crashes, "visit")), bad.err()
}

// journals returns the chain of entries of every run, and how many entries the
// journal has of it.
func (p *proof) journals(ctx context.Context) (chains map[segno.RunID][]segno.Entry, sizes map[segno.RunID]int, err error) {
	chains, sizes = map[segno.RunID][]segno.Entry{}, map[segno.RunID]int{}
	err = p.rows(ctx, "SELECT run, id, visit, kind, state FROM segno_history", func(scan func(...any) error) error {
		var run segno.RunID
		var e segno.Entry
		err := scan(&run, &e.ID, &e.Visit, &e.Kind, &e.State)
		chains[run] = append(chains[run], e)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	err = p.rows(ctx, "SELECT run, count(*) FROM segno_log GROUP BY run", func(scan func(...any) error) error {
		var run segno.RunID
		var n int
		err := scan(&run, &n)
		sizes[run] = n
		return err
	})
	return chains, sizes, err
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// followed checks one run's journal: it begins with visit 1, every transition
// raises the visit by one, whatever else happens belongs to the visit it
// happens in, undos go down, and there is one end if the run has ended.
func followed(run *segno.RunInfo, history []segno.Entry) error {
	if len(history) == 0 {
		return errors.New("it has no journal")
	}
	visit, undone, ends := 0, 1<<30, 0
	for i, e := range history {
		if i > 0 && e.ID <= history[i-1].ID {
			return fmt.Errorf("entry %d follows entry %d", e.ID, history[i-1].ID)
		}
		if ends > 0 {
			return fmt.Errorf("entry %d comes after the end", e.ID)
		}
		want := visit
		switch e.Kind {
		case "enter":
			visit++
			want = visit
		case "end":
			ends++
			want = visit + b2i(run.Status == segno.RunCompleted)
		case "undone":
			if e.Visit >= undone {
				return fmt.Errorf("visit %d was undone after visit %d", e.Visit, undone)
			}
			undone, want = e.Visit, e.Visit
		}
		if e.Visit != want {
			return fmt.Errorf("entry %d (%s %s) is of visit %d, not %d", e.ID, e.Kind, e.State, e.Visit, want)
		}
	}
	if ends != b2i(run.Status.Ended()) {
		return fmt.Errorf("it is %s and has %d ends", run.Status, ends)
	}
	return nil
}

// complete checks that every run that was asked for has ended as it should.
func (p *proof) complete(ctx context.Context) (string, error) {
	var bad faults
	byID := map[segno.RunID]*segno.RunInfo{}
	for i := range p.runs {
		byID[p.runs[i].ID] = &p.runs[i]
	}
	if in := p.of("ingest"); len(in) != 1 || in[0].Status != segno.RunCompleted {
		bad.add("the ingest has %d runs, or has not completed", len(in))
	}
	placed := 0
	err := p.rows(ctx, "SELECT id, run FROM demo_order", func(scan func(...any) error) error {
		var order int
		var id segno.RunID
		err := scan(&order, &id)
		placed++
		if run := byID[id]; run == nil || run.Flow != "orders" || !run.Status.Ended() {
			bad.add("order %d: its run %d has not ended", order, id)
		}
		return err
	})
	if runs := p.of("orders"); err == nil && (placed == 0 || len(runs) != placed) {
		bad.add("%d orders were placed, there are %d runs", placed, len(runs))
	}
	var open int
	for _, run := range p.runs {
		open += b2i(!run.Status.Ended())
	}
	return fmt.Sprintf("the ingest and %s have ended, with one run each; left for the next start: %s", many(placed, "order"), many(open, "run")),
		errors.Join(err, bad.err())
}

func (p *proof) integrity(ctx context.Context) (string, error) {
	var bad faults
	err := p.rows(ctx, "PRAGMA integrity_check", func(scan func(...any) error) error {
		var text string
		err := scan(&text)
		if text != "ok" {
			bad.add("%s", text)
		}
		return err
	})
	return "PRAGMA integrity_check: ok", errors.Join(err, bad.err())
}
