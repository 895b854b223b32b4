package demo

import (
	"context"
	"time"

	"github.com/segnodev/segno"
)

// Report is the data of a run that writes a report.
type Report struct{}

// States of the report.
const (
	Write   State = "write"
	Written State = "written"
)

// reportCron is every second; the first of the six fields is the seconds.
const reportCron = "* * * * * *"

// report is the workflow behind the flow "report".
func report() segno.Workflow[State, Report] {
	return segno.Workflow[State, Report]{
		Version: 1,
		Initial: Write,
		Steps: segno.Steps[State, Report]{
			Write:   {Do: write, Next: []State{Written}},
			Written: {Final: true},
		},
	}
}

// write sums up what the others have done, as its commit sees it.
func write(ctx context.Context, _ *Report) (State, error) {
	in := segno.InfoFrom(ctx)
	return Written, segno.OnCommit(ctx, func(tx segno.Tx) error {
		_, err := tx.Exec(`INSERT INTO demo_report (slot, run, missed, lines, shipped, rolled_back)
SELECT ?, ?, ?, (SELECT coalesce(sum(lines), 0) FROM demo_count),
	(SELECT count(*) FROM segno_runs WHERE flow = 'orders' AND status = 'completed'),
	(SELECT count(*) FROM segno_runs WHERE flow = 'orders' AND status = 'failed')`,
			in.Slot.Format(time.RFC3339), in.Run, in.Missed)
		return err
	})
}
