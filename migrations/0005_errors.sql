-- +goose Up

-- Finds the few runs that ended badly among all that are over. For an IN of three
-- values SQLite would make a table of them, with every change of a status.
CREATE INDEX _segno_run_bad ON _segno_run (status) WHERE status = 'failed' OR status = 'undo_failed' OR status = 'cancelled';

DROP VIEW segno_errors;
CREATE VIEW segno_errors AS
SELECT r.run, f.id AS flow, r.status, r.state, r.cause, coalesce(r.stuck_reason, r.error) AS error,
    strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(r.ended, r.entered) / 1e6, 'unixepoch') AS at
FROM _segno_run r JOIN _segno_flow f ON f.flow = r.flow
WHERE r.run IN (
    SELECT run FROM _segno_run WHERE status = 'failed'
    UNION ALL
    SELECT run FROM _segno_run WHERE status = 'undo_failed'
    UNION ALL
    SELECT run FROM _segno_run WHERE ended IS NULL AND status = 'stuck');

-- +goose Down
SELECT 1;
