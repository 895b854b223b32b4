-- +goose Up

-- The signals of a run are found by its number alone, too, when it is pruned.
DROP INDEX _segno_signal_queue;
CREATE INDEX _segno_signal_queue ON _segno_signal (run, name, taken);

-- The ledger is whole behind this slot. Up to it, rows that grew old were pruned.
ALTER TABLE _segno_flow ADD COLUMN pruned INTEGER;

-- +goose Down
SELECT 1;
