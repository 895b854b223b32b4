-- +goose Up

-- Who owns the file. One row. epoch rises with every owner; a write of an older
-- epoch fails. clean says that the last owner stopped by itself. The high-water
-- marks keep ids from being handed out twice after rows were pruned.
CREATE TABLE _segno_owner (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    epoch        INTEGER NOT NULL,
    pid          INTEGER NOT NULL,
    host         TEXT    NOT NULL,
    since        INTEGER NOT NULL,
    clean        INTEGER NOT NULL DEFAULT 0,
    suspect_for  INTEGER NOT NULL DEFAULT 0,
    run_high     INTEGER NOT NULL DEFAULT 0,
    journal_high INTEGER NOT NULL DEFAULT 0
) STRICT;

-- One small row per flow: its schedule and the cursor in it, the gate that
-- failures close, the trip, the pause, and counters of its open runs.
CREATE TABLE _segno_flow (
    flow        INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    position    INTEGER NOT NULL,           -- order of registration
    schedule    TEXT    NOT NULL,           -- '' is manual
    registered  INTEGER NOT NULL,
    orphaned    INTEGER,                    -- since when the program does not register it
    anchor      INTEGER,                    -- of an interval's grid
    cursor      INTEGER,                    -- the last slot decided
    next        INTEGER,                    -- the next slot that may be dispatched
    outcome     TEXT    NOT NULL DEFAULT 'idle'
                CHECK (outcome IN ('idle', 'completed', 'backoff', 'tripped')),
    runs        INTEGER NOT NULL DEFAULT 0, -- runs ever begun
    last_run    INTEGER,
    last_error  TEXT,
    streak      INTEGER NOT NULL DEFAULT 0, -- failures in a row
    gate_set    INTEGER,                    -- the gate: closed at, for, until
    gate_delay  INTEGER,
    gate_until  INTEGER,
    paused      INTEGER,
    pause_note  TEXT,
    pause_actor TEXT,
    pause_until INTEGER,
    active      INTEGER NOT NULL DEFAULT 0, -- running, parked, waiting, undoing
    queued      INTEGER NOT NULL DEFAULT 0, -- pending now
    later       INTEGER NOT NULL DEFAULT 0, -- pending at a time to come
    stuck       INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX _segno_flow_next ON _segno_flow (next) WHERE next IS NOT NULL;

-- The head of each run: all that is needed to go on with it.
CREATE TABLE _segno_run (
    run          INTEGER PRIMARY KEY,
    flow         INTEGER NOT NULL REFERENCES _segno_flow (flow),
    seq          INTEGER NOT NULL,            -- commits on this run: the compare-and-set
    status       TEXT    NOT NULL,            -- pending running parked waiting undoing stuck; completed failed cancelled undo_failed
    version      INTEGER NOT NULL,
    nonce        TEXT    NOT NULL,            -- of its idempotency keys
    key          TEXT,                        -- the caller's own
    state        TEXT    NOT NULL,
    visit        INTEGER NOT NULL,
    attempt      INTEGER NOT NULL,
    polls        INTEGER NOT NULL DEFAULT 0,
    crashes      INTEGER NOT NULL DEFAULT 0,  -- in this visit
    uncertain    INTEGER NOT NULL DEFAULT 0,  -- its last attempt ended without a known outcome
    entered      INTEGER NOT NULL,
    visit_due    INTEGER,                     -- deadline of the visit
    due          INTEGER,                     -- next attempt or wake-up
    delay        INTEGER,                     -- what due was made from
    data         TEXT    NOT NULL,
    held         INTEGER NOT NULL DEFAULT 0,  -- its code may be executing
    suspect      INTEGER NOT NULL DEFAULT 0,  -- executing after it died with the process before
    cancel       INTEGER NOT NULL DEFAULT 0,
    wake         INTEGER,                     -- when the dispatcher must look
    deadline     INTEGER,
    cause        TEXT,                        -- why it failed or rolls back
    error        TEXT,
    stuck_reason TEXT,
    first        INTEGER NOT NULL,            -- journal entries
    last         INTEGER NOT NULL,
    undo_at      INTEGER NOT NULL DEFAULT 0,  -- entry that closes the next visit to undo
    undo_errors  INTEGER NOT NULL DEFAULT 0,
    redo         INTEGER NOT NULL DEFAULT 0,
    slot         INTEGER,                     -- nominal firing time; none: triggered
    missed       INTEGER NOT NULL DEFAULT 0,  -- slots coalesced into this run
    first_missed INTEGER,
    created      INTEGER NOT NULL,
    started      INTEGER,
    ended        INTEGER,
    note         TEXT
) STRICT;

-- Finds interrupted, due and open runs. A transition names none of its columns.
CREATE INDEX _segno_run_open ON _segno_run (status, wake, flow) WHERE ended IS NULL;
CREATE INDEX _segno_run_flow ON _segno_run (flow);
CREATE UNIQUE INDEX _segno_run_key ON _segno_run (flow, key) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX _segno_run_slot ON _segno_run (flow, slot) WHERE slot IS NOT NULL;

-- The append-only record of all runs. No secondary index: a run's entries are
-- chained by prev, from the run's last to its first.
CREATE TABLE _segno_journal (
    id        INTEGER PRIMARY KEY,
    run       INTEGER NOT NULL,
    visit     INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    state     TEXT    NOT NULL,
    attempt   INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    data      TEXT,                           -- none: as in the entry before that has some
    cause     TEXT,
    error     TEXT,
    uncertain INTEGER,
    undo      TEXT,                           -- state of the visit it closes, if that has an undo
    prev      INTEGER,
    prev_undo INTEGER
) STRICT;

-- Small durable values of open visits.
CREATE TABLE _segno_memo (
    run   INTEGER NOT NULL,
    visit INTEGER NOT NULL,
    key   TEXT    NOT NULL,
    value TEXT    NOT NULL,
    PRIMARY KEY (run, visit, key)
) STRICT, WITHOUT ROWID;

-- The slot ledger: what became of every slot. A stretch of one outcome is one row.
CREATE TABLE _segno_ledger (
    id      INTEGER PRIMARY KEY,
    flow    INTEGER NOT NULL REFERENCES _segno_flow (flow),
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    outcome TEXT    NOT NULL CHECK (outcome IN ('fired', 'coalesced', 'skipped')),
    reason  TEXT,
    run     INTEGER,
    at      INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX _segno_ledger_slot ON _segno_ledger (flow, first);

-- What happened to the scheduler itself: takeovers, changed schedules, pauses, resets.
CREATE TABLE _segno_event (
    id   INTEGER PRIMARY KEY,
    at   INTEGER NOT NULL,
    kind TEXT    NOT NULL,
    flow INTEGER REFERENCES _segno_flow (flow),
    note TEXT
) STRICT;

CREATE VIEW segno_owner AS
SELECT epoch, pid, host, strftime('%Y-%m-%dT%H:%M:%fZ', since / 1e6, 'unixepoch') AS since, clean
FROM _segno_owner;

CREATE VIEW segno_flows AS
SELECT id AS flow,
    CASE WHEN outcome = 'tripped' THEN 'tripped' WHEN active + queued > 0 THEN 'running' ELSE outcome END AS status,
    CASE schedule WHEN '' THEN 'manual' ELSE schedule END AS schedule,
    runs,
    strftime('%Y-%m-%dT%H:%M:%fZ', last_run / 1e6, 'unixepoch') AS last_run,
    streak,
    strftime('%Y-%m-%dT%H:%M:%fZ', gate_until / 1e6, 'unixepoch') AS next_eligible,
    strftime('%Y-%m-%dT%H:%M:%fZ', next / 1e6, 'unixepoch') AS next_run,
    active + queued AS open, stuck,
    strftime('%Y-%m-%dT%H:%M:%fZ', paused / 1e6, 'unixepoch') AS paused, pause_note,
    strftime('%Y-%m-%dT%H:%M:%fZ', orphaned / 1e6, 'unixepoch') AS orphaned,
    last_error
FROM _segno_flow ORDER BY position, flow;

CREATE VIEW segno_runs AS
SELECT r.run, f.id AS flow, r.status, r.state, r.visit, r.attempt, r.key,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.created / 1e6, 'unixepoch') AS created,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.started / 1e6, 'unixepoch') AS started,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.ended / 1e6, 'unixepoch') AS ended,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.slot / 1e6, 'unixepoch') AS slot,
    r.missed, r.crashes, r.cancel, r.cause, r.error, r.stuck_reason, r.version, r.data
FROM _segno_run r JOIN _segno_flow f ON f.flow = r.flow;

-- The history of one run, by its chain: ask with WHERE run = N. The last line
-- has the run's status, and of an error there is its first line. The chain is
-- walked with a subquery, not a join: for a join SQLite 3.40 reads the whole
-- journal into a Bloom filter once there are statistics.
CREATE VIEW segno_history AS
SELECT r.run, f.id AS flow, j.id,
    strftime('%Y-%m-%dT%H:%M:%fZ', j.at / 1e6, 'unixepoch') AS at,
    j.visit, j.kind, j.state, j.attempt, CASE j.id WHEN r.last THEN r.status END AS status,
    CASE WHEN j.uncertain THEN 'uncertain' END AS uncertain,
    substr(j.error, 1, instr(j.error || char(10), char(10)) - 1) AS error, j.data
FROM _segno_run r JOIN _segno_flow f ON f.flow = r.flow
CROSS JOIN json_each((
    WITH RECURSIVE chain (id, n) AS (
        VALUES (r.last, 0)
        UNION ALL
        SELECT (SELECT prev FROM _segno_journal WHERE id = chain.id), n + 1 FROM chain WHERE chain.id IS NOT NULL
    )
    SELECT json_group_array(id) FROM (SELECT id FROM chain WHERE id IS NOT NULL ORDER BY n DESC))) e
CROSS JOIN _segno_journal j ON j.id = e.value;

-- What happened lately, over all runs: ask with ORDER BY id DESC LIMIT n.
CREATE VIEW segno_log AS
SELECT j.id, strftime('%Y-%m-%dT%H:%M:%fZ', j.at / 1e6, 'unixepoch') AS at,
    j.run, f.id AS flow, j.visit, j.kind, j.state, j.attempt, CASE j.id WHEN r.last THEN r.status END AS status,
    CASE WHEN j.uncertain THEN 'uncertain' END AS uncertain,
    substr(j.error, 1, instr(j.error || char(10), char(10)) - 1) AS error
FROM _segno_journal j CROSS JOIN _segno_run r ON r.run = j.run JOIN _segno_flow f ON f.flow = r.flow;

CREATE VIEW segno_slots AS
SELECT f.id AS flow,
    strftime('%Y-%m-%dT%H:%M:%fZ', l.first / 1e6, 'unixepoch') AS first,
    strftime('%Y-%m-%dT%H:%M:%fZ', l.last / 1e6, 'unixepoch') AS last,
    l.count, l.outcome, l.reason, l.run,
    strftime('%Y-%m-%dT%H:%M:%fZ', l.at / 1e6, 'unixepoch') AS decided
FROM _segno_ledger l JOIN _segno_flow f ON f.flow = l.flow;

CREATE VIEW segno_due AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', r.wake / 1e6, 'unixepoch') AS due, 'run' AS what, f.id AS flow, r.run, r.status, r.state
FROM _segno_run r JOIN _segno_flow f ON f.flow = r.flow
WHERE r.ended IS NULL AND r.held = 0 AND r.wake IS NOT NULL
UNION ALL
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', next / 1e6, 'unixepoch'), 'slot', id, NULL, outcome, NULL
FROM _segno_flow WHERE next IS NOT NULL
ORDER BY 1;

CREATE VIEW segno_errors AS
SELECT r.run, f.id AS flow, r.status, r.state, r.cause, coalesce(r.stuck_reason, r.error) AS error,
    strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(r.ended, r.entered) / 1e6, 'unixepoch') AS at
FROM _segno_run r JOIN _segno_flow f ON f.flow = r.flow
WHERE r.status IN ('failed', 'undo_failed', 'stuck');

CREATE VIEW segno_events AS
SELECT e.id, strftime('%Y-%m-%dT%H:%M:%fZ', e.at / 1e6, 'unixepoch') AS at, e.kind, f.id AS flow, e.note
FROM _segno_event e LEFT JOIN _segno_flow f ON f.flow = e.flow;

-- +goose Down
SELECT 1;
