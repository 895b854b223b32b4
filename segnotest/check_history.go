package segnotest

import (
	"database/sql"
	"math"
)

// histories checks every run's journal. Its entries, in the order of their ids,
// are the run's chain: each names the one before it.
func (c *checker) histories() {
	h := &history{c: c}
	c.each(`SELECT r.run, r.visit, r.ended IS NOT NULL, r.status, r.first, r.last, r.undo_at,
	j.id, j.visit, j.kind, j.undo IS NOT NULL, j.data IS NOT NULL, j.prev, j.prev_undo
FROM _segno_run r LEFT JOIN _segno_journal j USING (run) ORDER BY r.run, j.id`, h.next)
	h.close()
	c.rows(`SELECT 'entry ' || min(id) || ' belongs to run ' || run || ', which does not exist' FROM _segno_journal
WHERE run NOT IN (SELECT run FROM _segno_run) GROUP BY run`)
}

// history follows one run through its entries. A rollback that UndoRun repeats
// opens an ended run again, so that an end may have entries behind it: those of
// another rollback. Of a long run the oldest entries may have been pruned: of
// one that is open all but those that an undo needs, of one that is about to be
// deleted simply the oldest.
type history struct {
	c       *checker
	run     head
	at      entry // the last one seen
	first   int64
	entries int
	visit   int  // the highest so far
	undoing bool // behind the start of a rollback
	over    bool // behind an end
	pruned  bool // some of its oldest entries were
	thin    bool // every entry before is one that an undo needs
	blind   bool // whether it was in a rollback at its oldest entry is not known
	undo    int64
	points  map[int64]bool // entries that close a visit to undo
	undone  map[int]bool
	outcome map[int]bool // undos with an outcome in this rollback
}

type head struct {
	run, first, last, undoAt int64
	visit                    int
	ended                    bool
	status                   string
}

type entry struct {
	id             sql.NullInt64
	visit          sql.NullInt64
	kind           sql.NullString
	undo, data     bool
	prev, prevUndo sql.NullInt64
}

// next takes the next row.
func (h *history) next(scan func(...any) error) error {
	var r head
	var e entry
	err := scan(&r.run, &r.visit, &r.ended, &r.status, &r.first, &r.last, &r.undoAt,
		&e.id, &e.visit, &e.kind, &e.undo, &e.data, &e.prev, &e.prevUndo)
	if err != nil {
		return err
	}
	if r.run != h.run.run {
		h.close()
		*h = history{c: h.c, run: r, points: map[int64]bool{}, undone: map[int]bool{}, outcome: map[int]bool{}}
	}
	if e.id.Valid {
		h.link(e)
		h.follow(e.kind.String, int(e.visit.Int64))
		h.entries++
	}
	return nil
}

func (h *history) fault(format string, args ...any) {
	h.c.fault("run %d, entry %d: "+format, append([]any{h.run.run, h.at.id.Int64}, args...)...)
}

// link checks that the entry continues the two chains.
func (h *history) link(e entry) {
	before := h.at
	h.at = e
	if e.prev != before.id {
		h.fault("prev is %d, the entry before is %d", e.prev.Int64, before.id.Int64)
	}
	if !e.undo {
		return
	}
	if e.prevUndo.Int64 != h.undo {
		h.fault("prev_undo is %d, the undo before is %d", e.prevUndo.Int64, h.undo)
	}
	if !e.data {
		h.fault("it closes a visit to be undone and has no data for that")
	}
	h.undo = e.id.Int64
	h.points[h.undo] = true
}

// follow checks that the entry may stand where it stands.
func (h *history) follow(kind string, visit int) {
	if h.over && kind != "rollback" {
		h.fault("%s follows the end", kind)
	}
	if h.entries == 0 {
		h.first = h.at.id.Int64
		h.pruned = h.first > h.run.first
		h.thin, h.blind = h.pruned, h.pruned
	}
	if h.entries == 0 && !h.pruned && (kind != "enter" || visit != 1 || !h.at.data) {
		h.fault("the first entry is %s of visit %d (with data: %v), not enter of visit 1 with data", kind, visit, h.at.data)
	}
	low, high := h.visit, h.visit
	switch kind {
	case "enter":
		if h.undoing {
			h.fault("a state is entered during a rollback")
		}
		low, high = h.visit+1, h.visit+1
	case "end":
		h.over = true
		if !h.undoing { // the final state is a visit, unless it was the first
			high = h.visit + 1
		}
	case "rollback":
		if h.undoing && !h.over {
			h.fault("a rollback begins within a rollback")
		}
		h.undoing, h.over = true, false
		clear(h.outcome)
	case "retry":
		if h.undoing {
			low = 1
		}
	case "undone", "undo_failed":
		low = 1
		h.undid(kind, visit)
	case "crash", "stuck":
	default:
		h.fault("%q is no kind of entry", kind)
	}
	if h.thin || h.blind { // others stood before it
		high = math.MaxInt
	}
	if h.blind {
		low = 1
	}
	h.thin = h.thin && h.at.undo
	h.blind = h.blind && kind != "enter" && kind != "rollback"
	if visit < low || visit > high {
		h.fault("%s has visit %d, want %d to %d", kind, visit, low, high)
	}
	h.visit = max(h.visit, visit)
}

// undid checks that an undo has one outcome per rollback, and no other once it succeeded.
func (h *history) undid(kind string, visit int) {
	switch {
	case !h.undoing && !h.blind:
		h.fault("%s of visit %d outside of a rollback", kind, visit)
	case h.outcome[visit]:
		h.fault("visit %d has two outcomes in one rollback", visit)
	case h.undone[visit]:
		h.fault("visit %d was undone before", visit)
	}
	h.outcome[visit] = true
	h.undone[visit] = kind == "undone"
}

// close compares the journal with the run's head.
func (h *history) close() {
	r := h.run
	switch {
	case r.run == 0:
		return
	case h.entries == 0:
		h.c.fault("run %d has no history", r.run)
		return
	case h.first != r.first && !h.pruned || h.at.id.Int64 != r.last:
		h.fault("the history is %d to this one, the run says %d to %d", h.first, r.first, r.last)
	case h.over != r.ended:
		h.fault("the run is %s and its last entry is %s", r.status, h.at.kind.String)
	case h.visit != r.visit:
		h.fault("it is the last, of visit %d; the run is in visit %d", h.visit, r.visit)
	case r.undoAt != 0 && !h.points[r.undoAt]:
		h.fault("the run's next undo is entry %d, which closes no visit to undo", r.undoAt)
	case r.undoAt != 0 && r.ended && r.status != "completed":
		h.fault("the run is %s and has still to undo from entry %d on", r.status, r.undoAt)
	case !h.at.data && r.ended:
		h.fault("the last entry of an ended run has no data")
	}
}
