package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/segnodev/segno"
)

// severity says how bad a finding is. An error is about data, or about a run
// that only a person can end; a warning about work that is not being done.
type severity string

const (
	fine    severity = "ok"
	warning severity = "warning"
	serious severity = "error"
)

// A finding is what one check has found.
type finding struct {
	Check    string   `json:"check"`
	Severity severity `json:"severity"`
	Evidence string   `json:"evidence"`
	Fix      string   `json:"fix,omitempty"`
}

// diagnosis is the answer of doctor.
type diagnosis struct {
	File     string    `json:"file"`
	Severity severity  `json:"severity"` // the worst of the findings
	Findings []finding `json:"findings"`
}

func (a *app) doctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check a file and what its flows and runs need",
		Long: `Check a file and what its flows and runs need. Nothing is changed.

The exit code is 0 if all is well, 5 after warnings (work that is not being
done), 6 after errors (damage, or a run that only a person can end).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.diagnose(cmd.Context()) },
	}
}

func (a *app) diagnose(ctx context.Context) error {
	path, err := a.path()
	if err != nil {
		return err
	}
	d := diagnosis{File: path, Severity: fine}
	r, err := segno.OpenReader(ctx, path)
	switch {
	case errors.Is(err, segno.ErrNotFound):
		return failed(err, unopened(path, err))
	case err != nil:
		d.add(finding{"file", serious, plain(err.Error()), "as the text says; the other checks need a file that opens"})
	default:
		defer func() { _ = r.Close() }()
		d.File = r.Path()
		for _, check := range checks {
			d.add(check(ctx, r)...)
		}
	}
	return a.prescribe(&d)
}

// add takes findings in, and keeps the worst severity.
func (d *diagnosis) add(findings ...finding) {
	for _, f := range findings {
		if f.Severity == serious || f.Severity == warning && d.Severity == fine {
			d.Severity = f.Severity
		}
		d.Findings = append(d.Findings, f)
	}
}

// prescribe prints the diagnosis; its severity is the exit code.
func (a *app) prescribe(d *diagnosis) error {
	if a.output == "json" {
		if err := a.json(d); err != nil {
			return err
		}
	} else {
		a.printFindings(d)
	}
	switch d.Severity {
	case serious:
		return &failure{code: exitErrors}
	case warning:
		return &failure{code: exitWarnings}
	}
	return nil
}

func (a *app) printFindings(d *diagnosis) {
	fmt.Fprintf(a.stdout, "%s: %s\n\n", oneLine(d.File), map[severity]string{fine: "all is well", warning: "there are warnings", serious: "there are errors"}[d.Severity])
	for _, f := range d.Findings {
		fmt.Fprintf(a.stdout, "%-8s %-13s %s\n", f.Severity, f.Check, oneLine(f.Evidence))
		if f.Fix != "" {
			fmt.Fprintf(a.stdout, "%-8s %-13s fix: %s\n", "", "", oneLine(f.Fix))
		}
	}
}
