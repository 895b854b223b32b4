package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/segnodev/segno"
)

// runsQuery is what the flags of runs list say.
type runsQuery struct {
	flow   string
	status []string
	before int64
	limit  int
}

func (a *app) runsList() *cobra.Command {
	var q runsQuery
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List runs, newest first",
		Args:  cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := q.filter()
		if err != nil {
			return err
		}
		return a.reader(func(ctx context.Context, r *segno.Reader, _ []string) error { return a.listRuns(ctx, r, f) })(cmd, args)
	}
	flags := cmd.Flags()
	flags.StringVar(&q.flow, "flow", "", "only runs of this flow")
	flags.StringSliceVar(&q.status, "status", nil, "only runs of these statuses: "+words(statuses))
	flags.Int64Var(&q.before, "before", 0, "only runs with a smaller id: the last one of a page gives the next")
	flags.IntVar(&q.limit, "limit", 20, "at most so many")
	_ = cmd.RegisterFlagCompletionFunc("flow", a.completeFlow)
	_ = cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions(strings.Split(words(statuses), ","), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// words joins statuses with commas.
func words(list []segno.RunStatus) string {
	s := make([]string, len(list))
	for i := range list {
		s[i] = string(list[i])
	}
	return strings.Join(s, ",")
}

// filter checks the flags.
func (q *runsQuery) filter() (segno.RunFilter, error) {
	f := segno.RunFilter{Flow: q.flow, Before: segno.RunID(q.before), Limit: q.limit}
	if q.limit < 1 {
		return f, usage("--limit %d: give a number from 1", q.limit)
	}
	for _, s := range q.status {
		if !slices.Contains(statuses, segno.RunStatus(s)) {
			return f, usage("unknown status %q; it is one of: %s", s, words(statuses))
		}
		f.Status = append(f.Status, segno.RunStatus(s))
	}
	return f, nil
}

func (a *app) listRuns(ctx context.Context, r *segno.Reader, f segno.RunFilter) error {
	if f.Flow != "" {
		if _, err := a.known(ctx, r, f.Flow); err != nil {
			return err
		}
	}
	limit := f.Limit
	f.Limit++ // one more, to know whether there are more
	runs, err := r.Runs(ctx, f)
	if err != nil {
		return failed(err, "")
	}
	more := len(runs) > limit
	runs = runs[:min(limit, len(runs))]
	if a.output == "json" {
		for i := range runs {
			runs[i].Data = asJSON(runs[i].Data)
		}
		err = a.json(runs)
	} else {
		err = a.tableRuns(runs)
	}
	if more {
		a.note("there are more: add --before %d", runs[len(runs)-1].ID)
	}
	return err
}

func (a *app) tableRuns(runs []segno.RunInfo) error {
	if len(runs) == 0 {
		a.note("no such runs; with other flags there may be: segno runs list --help")
		return nil
	}
	now := time.Now()
	rows := make([]table.Row, len(runs))
	for i := range runs {
		run := &runs[i]
		rows[i] = table.Row{run.ID, run.Flow, status(string(run.Status)), run.State, run.Visit, stamp(run.Created), until(run, now), remark(run)}
	}
	return a.table(table.Row{"run", "flow", "status", "state", "visit", "created", "ended or due", "remark"}, rows)
}

// until is when a run ended, or goes on.
func until(run *segno.RunInfo, now time.Time) string {
	if run.Status.Ended() {
		return stamp(run.Ended)
	}
	return due(run.Due, now)
}

// remark is what is special about a run.
func remark(run *segno.RunInfo) string {
	switch {
	case run.StuckReason != "":
		return brief(plain(run.StuckReason), 60)
	case run.Error != "":
		return brief(plain(run.Error), 60)
	case run.Cancel && !run.Status.Ended():
		return "to be cancelled"
	case run.Key != "":
		return "key " + brief(run.Key, 56)
	}
	return ""
}
