-- +goose Up

-- A run that waits: for a signal of that name, or for the run it has called.
-- A run that was called knows by whom, and from which visit.
ALTER TABLE _segno_run ADD COLUMN awaits TEXT;
ALTER TABLE _segno_run ADD COLUMN child INTEGER;
ALTER TABLE _segno_run ADD COLUMN parent INTEGER;
ALTER TABLE _segno_run ADD COLUMN parent_visit INTEGER;
ALTER TABLE _segno_run ADD COLUMN depth INTEGER NOT NULL DEFAULT 0;

CREATE UNIQUE INDEX _segno_run_parent ON _segno_run (parent, parent_visit) WHERE parent IS NOT NULL;

-- Messages to runs, first in, first out per name. They stay as long as the run
-- does, so that one that comes twice is known.
CREATE TABLE _segno_signal (
    id      INTEGER PRIMARY KEY,
    run     INTEGER NOT NULL REFERENCES _segno_run (run),
    name    TEXT    NOT NULL,
    message TEXT,                           -- the sender's id; none: never a duplicate
    payload TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    taken   INTEGER                         -- by which visit
) STRICT;

CREATE UNIQUE INDEX _segno_signal_message ON _segno_signal (run, message) WHERE message IS NOT NULL;
CREATE INDEX _segno_signal_queue ON _segno_signal (run, name, id) WHERE taken IS NULL;

-- Circuit breakers, by name: what must hold after a restart.
CREATE TABLE _segno_breaker (
    name     TEXT    PRIMARY KEY,
    state    TEXT    NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    until    INTEGER,                       -- an open one lets nobody through before
    failures INTEGER NOT NULL DEFAULT 0,    -- that opened it
    error    TEXT,                          -- the last of them
    at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Rate limiters with long windows, by name. Written at most once a second.
CREATE TABLE _segno_limiter (
    name  TEXT    PRIMARY KEY,
    start INTEGER NOT NULL,                 -- of the window
    until INTEGER NOT NULL,
    used  INTEGER NOT NULL,
    quota INTEGER NOT NULL,
    at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

DROP VIEW segno_runs;
CREATE VIEW segno_runs AS
SELECT r.run, f.id AS flow, r.status, r.state, r.visit, r.attempt, r.key,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.created / 1e6, 'unixepoch') AS created,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.started / 1e6, 'unixepoch') AS started,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.ended / 1e6, 'unixepoch') AS ended,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.slot / 1e6, 'unixepoch') AS slot,
    r.missed, r.crashes, r.cancel, r.awaits, r.child, r.parent, r.cause, r.error, r.stuck_reason, r.version, r.data
FROM _segno_run r JOIN _segno_flow f ON f.flow = r.flow;

-- queued: nobody has awaited it yet. taken: it is in the hands of the visit that
-- is open. consumed: that visit is closed.
CREATE VIEW segno_signals AS
SELECT s.id, s.run, f.id AS flow, s.name, s.message,
    CASE WHEN s.taken IS NULL THEN 'queued' WHEN s.taken = r.visit AND r.ended IS NULL THEN 'taken' ELSE 'consumed' END AS status,
    s.taken AS visit, strftime('%Y-%m-%dT%H:%M:%fZ', s.at / 1e6, 'unixepoch') AS at, s.payload
FROM _segno_signal s JOIN _segno_run r ON r.run = s.run JOIN _segno_flow f ON f.flow = r.flow;

CREATE VIEW segno_breakers AS
SELECT name, state, strftime('%Y-%m-%dT%H:%M:%fZ', until / 1e6, 'unixepoch') AS until, failures, error,
    strftime('%Y-%m-%dT%H:%M:%fZ', at / 1e6, 'unixepoch') AS at
FROM _segno_breaker;

CREATE VIEW segno_limiters AS
SELECT name, strftime('%Y-%m-%dT%H:%M:%fZ', start / 1e6, 'unixepoch') AS start,
    strftime('%Y-%m-%dT%H:%M:%fZ', until / 1e6, 'unixepoch') AS until, used, quota,
    strftime('%Y-%m-%dT%H:%M:%fZ', at / 1e6, 'unixepoch') AS at
FROM _segno_limiter;

-- +goose Down
SELECT 1;
