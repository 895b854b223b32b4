package main

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/segnodev/segno"
)

func (a *app) runsShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show RUN",
		Short:             "Show one run and its data",
		Args:              oneArg("RUN"),
		ValidArgsFunction: a.completeRun,
		RunE:              a.reader(a.showRun),
	}
}

func (a *app) showRun(ctx context.Context, r *segno.Reader, args []string) error {
	run, err := a.run(ctx, r, args[0])
	if err != nil {
		return err
	}
	why, err := r.ExplainRun(ctx, run.ID)
	if err != nil {
		return failed(err, "")
	}
	if a.output == "json" {
		run.Data = asJSON(run.Data)
		return a.json(struct {
			segno.RunInfo
			Explanation segno.Explanation `json:"explanation"`
		}{run, why})
	}
	now := time.Now()
	err = a.fields(
		"run", run.ID,
		"flow", run.Flow,
		"status", status(string(run.Status)),
		"state", run.State,
		"visit", run.Visit,
		"attempt", run.Attempt,
		"crashes", count(run.Crashes),
		"uncertain", yes(run.Uncertain),
		"cancel asked", yes(run.Cancel),
		"key", run.Key,
		"slot", stamp(run.Slot),
		"slot's try", count(run.Try),
		"backfill", count(run.Backfill),
		"missed slots", count(run.Missed),
		"created", stamp(run.Created),
		"started", stamp(run.Started),
		"due", due(run.Due, now),
		"deadline", stamp(run.Deadline),
		"ended", stamp(run.Ended),
		"version", run.Version,
		"stuck", run.StuckReason,
		"cause", run.Cause,
		"error", run.Error,
		"note", run.Note,
		"stands", why.Text,
		"data", pretty(run.Data),
	)
	a.note("how it came there: segno runs history %d --db %s", run.ID, quoted(a.db))
	return err
}

func yes(set bool) string {
	if set {
		return "yes"
	}
	return ""
}

// pretty indents JSON, or returns what is none as it is.
func pretty(raw json.RawMessage) string {
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return string(raw)
	}
	return b.String()
}
