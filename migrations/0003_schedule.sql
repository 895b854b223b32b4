-- +goose Up

-- Slots that fired, for a flow with a bound on them; the slot that failed and is
-- to be tried again at the gate's end, and which try that is; how many slots a
-- person asked to skip.
ALTER TABLE _segno_flow ADD COLUMN fired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE _segno_flow ADD COLUMN retry_slot INTEGER;
ALTER TABLE _segno_flow ADD COLUMN retry_try INTEGER NOT NULL DEFAULT 0;
ALTER TABLE _segno_flow ADD COLUMN skips INTEGER NOT NULL DEFAULT 0;

-- Which try of its slot a run is, and the backfill that it belongs to.
ALTER TABLE _segno_run ADD COLUMN try INTEGER NOT NULL DEFAULT 0;
ALTER TABLE _segno_run ADD COLUMN backfill INTEGER;

DROP INDEX _segno_run_slot;
CREATE UNIQUE INDEX _segno_run_slot ON _segno_run (flow, slot, try) WHERE slot IS NOT NULL;

ALTER TABLE _segno_ledger ADD COLUMN note TEXT;

-- Slots to come that a person wants skipped.
CREATE TABLE _segno_skip (
    flow INTEGER NOT NULL REFERENCES _segno_flow (flow),
    slot INTEGER NOT NULL,
    note TEXT,
    at   INTEGER NOT NULL,
    PRIMARY KEY (flow, slot)
) STRICT, WITHOUT ROWID;

-- Ranges of slots to be run for after the fact, one after the other. Schedule
-- and anchor are those of the day it was asked for: they say what the slots are.
CREATE TABLE _segno_backfill (
    id       INTEGER PRIMARY KEY,
    flow     INTEGER NOT NULL REFERENCES _segno_flow (flow),
    schedule TEXT    NOT NULL,
    anchor   INTEGER,
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    cursor   INTEGER NOT NULL,                -- no slot up to it needs a run any more
    count    INTEGER NOT NULL,                -- slots taken on
    runs     INTEGER NOT NULL DEFAULT 0,      -- runs made for them
    at       INTEGER NOT NULL,
    done     INTEGER                          -- when the last run was made
) STRICT;

CREATE INDEX _segno_backfill_open ON _segno_backfill (flow) WHERE done IS NULL;

DROP VIEW segno_runs;
CREATE VIEW segno_runs AS
SELECT r.run, f.id AS flow, r.status, r.state, r.visit, r.attempt, r.key,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.created / 1e6, 'unixepoch') AS created,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.started / 1e6, 'unixepoch') AS started,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.ended / 1e6, 'unixepoch') AS ended,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.slot / 1e6, 'unixepoch') AS slot, r.try,
    r.missed, r.crashes, r.cancel, r.awaits, r.child, r.parent, r.backfill, r.cause, r.error, r.stuck_reason, r.version, r.data
FROM _segno_run r JOIN _segno_flow f ON f.flow = r.flow;

DROP VIEW segno_slots;
CREATE VIEW segno_slots AS
SELECT f.id AS flow,
    strftime('%Y-%m-%dT%H:%M:%fZ', l.first / 1e6, 'unixepoch') AS first,
    strftime('%Y-%m-%dT%H:%M:%fZ', l.last / 1e6, 'unixepoch') AS last,
    l.count, l.outcome, l.reason, l.run, l.note,
    strftime('%Y-%m-%dT%H:%M:%fZ', l.at / 1e6, 'unixepoch') AS decided
FROM _segno_ledger l JOIN _segno_flow f ON f.flow = l.flow;

CREATE VIEW segno_backfills AS
SELECT b.id, f.id AS flow,
    strftime('%Y-%m-%dT%H:%M:%fZ', b.first / 1e6, 'unixepoch') AS first,
    strftime('%Y-%m-%dT%H:%M:%fZ', b.last / 1e6, 'unixepoch') AS last,
    b.count, b.runs,
    strftime('%Y-%m-%dT%H:%M:%fZ', b.at / 1e6, 'unixepoch') AS at,
    strftime('%Y-%m-%dT%H:%M:%fZ', b.done / 1e6, 'unixepoch') AS done
FROM _segno_backfill b JOIN _segno_flow f ON f.flow = b.flow;

-- +goose Down
SELECT 1;
