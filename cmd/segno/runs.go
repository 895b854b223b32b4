package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/segnodev/segno"
)

// statuses are the statuses of runs, open ones first.
var statuses = []segno.RunStatus{
	segno.RunPending, segno.RunRunning, segno.RunParked, segno.RunWaiting, segno.RunUndoing, segno.RunStuck,
	segno.RunCompleted, segno.RunFailed, segno.RunCancelled, segno.RunUndoFailed,
}

// runs is the group of commands about runs.
func (a *app) runs() *cobra.Command {
	return group("runs", "The runs of a file: status, data, history", a.runsList(), a.runsShow(), a.runsHistory())
}

// runID reads the id of a run.
func runID(s string) (segno.RunID, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		return 0, usage("%q is no run id: a run id is a number from 1; see: segno runs list", s)
	}
	return segno.RunID(n), nil
}

// noRun says where to find the ids of runs.
func (a *app) noRun(err error) error {
	return failed(err, "list the runs there are: segno runs list --db "+quoted(a.db))
}

// run returns the run that an argument names.
func (a *app) run(ctx context.Context, r *segno.Reader, arg string) (segno.RunInfo, error) {
	id, err := runID(arg)
	if err != nil {
		return segno.RunInfo{}, err
	}
	run, err := r.Run(ctx, id)
	if err != nil {
		return run, a.noRun(err)
	}
	return run, nil
}
