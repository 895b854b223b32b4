package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segnodev/segno"
)

// A Finding is one claim of the proof, with what the file says to it.
type Finding struct {
	Claim    string
	Evidence string
	Err      error // why it does not hold
}

// proof is what the checks have at hand. All of it was read from the file, the
// input excepted.
type proof struct {
	r     *segno.Reader
	facts []fact // of the input, read at once
	name  string // of the input
	kills int    // that there have to be at least
	runs  []segno.RunInfo
}

// claims are what the file has to show.
var claims = []struct {
	text  string // the input's name goes into it
	check func(p *proof, ctx context.Context) (evidence string, err error)
}{
	{"every line of the input was counted exactly once", (*proof).lines},
	{"no transition is missing, none is doubled", (*proof).transitions},
	{"streak, window and trip read the same before and after each kill", (*proof).kept},
	{"no run began inside a window that a kill interrupted", (*proof).windows},
	{"the flow tripped, stood still, and ran again after its reset", (*proof).trip},
	{"every order that was rolled back balances to zero", (*proof).rollbacks},
	{"money and goods are conserved", (*proof).conserved},
	{"every second has its outcome, every report was written once", (*proof).reports},
	{"nothing that was asked for was left undone", (*proof).complete},
	{"SQLite finds no damage", (*proof).integrity},
}

// Prove checks every claim against the file. The input is the one that was
// ingested; kills is the least number that the file must tell of.
func Prove(ctx context.Context, db, input string, kills int) ([]Finding, error) {
	r, err := segno.OpenReader(ctx, db)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	p := &proof{r: r, name: sourceName(input), kills: kills}
	if p.facts, err = readAll(input); err != nil {
		return nil, err
	}
	if p.runs, err = allRuns(ctx, r); err != nil {
		return nil, err
	}
	findings := make([]Finding, len(claims))
	for i, c := range claims {
		evidence, err := c.check(p, ctx)
		findings[i] = Finding{Claim: c.text, Evidence: evidence, Err: err}
	}
	return findings, nil
}

// allRuns returns every run of the file, oldest first.
func allRuns(ctx context.Context, r *segno.Reader) (all []segno.RunInfo, err error) {
	var before segno.RunID
	for {
		page, err := r.Runs(ctx, segno.RunFilter{Before: before, Limit: 500})
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
		before = page[len(page)-1].ID
	}
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all, nil
}

// of returns the runs of a flow.
func (p *proof) of(flow string) (runs []segno.RunInfo) {
	for _, run := range p.runs {
		if run.Flow == flow {
			runs = append(runs, run)
		}
	}
	return runs
}

// prove prints the proof and returns ErrProof if it does not hold.
func (s *supervisor) prove(ctx context.Context) error {
	findings, err := Prove(ctx, s.cfg.DB, s.cfg.Input, s.cfg.Kills)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.cfg.Out, "\nProof, from the file:\n\n")
	var failed error
	for _, f := range findings {
		mark, text := "ok", f.Evidence
		if f.Err != nil {
			mark, text, failed = "FAILED", f.Err.Error(), ErrProof
		}
		fmt.Fprintf(s.cfg.Out, "  %-7s %s\n          %s\n", mark, f.Claim, text)
	}
	if err := s.lookYourself(ctx); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("%w; please report it, with the file %s and the log %s beside it", failed, s.cfg.DB, workerLog(s.cfg.DB))
	}
	return nil
}

// faults collects what is wrong, without drowning in it.
type faults struct{ errs []error }

const maxFaults = 5

func (f *faults) add(format string, args ...any) {
	if f.errs = append(f.errs, fmt.Errorf(format, args...)); len(f.errs) == maxFaults+1 {
		f.errs[maxFaults] = errors.New("…")
	}
}

func (f *faults) err() error { return errors.Join(f.errs[:min(len(f.errs), maxFaults+1)]...) }

// rows calls scan for each row of a query.
func (p *proof) rows(ctx context.Context, query string, scan func(scan func(...any) error) error) error {
	rows, err := p.r.DB().QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// clock reads a time of the demo's tables and of segno's views, zero for NULL.
func clock(s string) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, s)
	return t
}
