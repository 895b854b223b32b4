package demo

import (
	"context"
	"time"

	"github.com/segnodev/segno"
)

// A view is what the supervisor sees in the file, beside its live owner.
type view struct {
	at       time.Time
	probe    segno.FlowInfo
	lines    int // counted
	ingested bool
	shipped  int
	returned int // orders rolled back
	undoing  int // rolling back
	open     int // orders to be done, those included
	reports  int
	inFlight int // runs that are executing, or were when the worker died
}

const viewSQL = `SELECT
	(SELECT coalesce(sum(lines), 0) FROM demo_count),
	(SELECT count(*) FROM segno_runs WHERE flow = 'ingest' AND status = 'completed'),
	(SELECT count(*) FROM segno_runs WHERE flow = 'orders' AND status = 'completed'),
	(SELECT count(*) FROM segno_runs WHERE flow = 'orders' AND status = 'failed'),
	(SELECT count(*) FROM segno_runs WHERE flow = 'orders' AND status = 'undoing'),
	(SELECT count(*) FROM segno_runs WHERE flow = 'orders' AND ended IS NULL),
	(SELECT count(*) FROM demo_report),
	(SELECT count(*) FROM segno_runs WHERE status IN ('running', 'undoing'))`

// look reads the view.
func look(ctx context.Context, r *segno.Reader) (v view, err error) {
	v.at = time.Now()
	if v.probe, err = r.Status(ctx, "probe"); err != nil {
		return v, err
	}
	row := r.DB().QueryRowContext(ctx, viewSQL)
	return v, row.Scan(&v.lines, &v.ingested, &v.shipped, &v.returned, &v.undoing, &v.open, &v.reports, &v.inFlight)
}

// window returns how long the probe's backoff window is still open.
func (v *view) window() time.Duration {
	return max(v.probe.NextEligible.Sub(v.at), 0)
}
