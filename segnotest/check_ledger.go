package segnotest

import (
	"database/sql"
	"math"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// maxSlots bounds how many slots of one stretch are counted one by one.
const maxSlots = 100_000

// ledgers checks that every slot up to a flow's cursor has one outcome, as far
// as the slots can be told from the schedule: an interval's, and those of a
// cron expression in UTC. A flow whose schedule was changed has slots of both.
func (c *checker) ledgers() {
	l := &ledger{c: c}
	c.each(`SELECT f.id, f.schedule, coalesce(f.anchor, 0), coalesce(f.cursor, 0), f.registered, coalesce(f.pruned, 0),
	EXISTS (SELECT 1 FROM _segno_event e WHERE e.flow = f.flow AND e.kind = 'schedule_changed'),
	EXISTS (SELECT 1 FROM _segno_event e WHERE e.flow = f.flow AND e.kind = 'clock_rollback'),
	coalesce((SELECT group_concat(e.note) FROM _segno_event e WHERE e.flow = f.flow AND e.kind = 'reanchored'), ''),
	l.first, l.last, l.count
FROM _segno_flow f LEFT JOIN _segno_ledger l USING (flow) ORDER BY f.flow, l.first`, l.next)
	l.close()
	c.rows(
		`SELECT 'a slot of flow ' || l.flow || ' was ' || l.outcome || ' (' || coalesce(l.reason, 'no reason') || ') for run ' || coalesce(l.run, 'none')
FROM _segno_ledger l LEFT JOIN _segno_run r USING (run)
WHERE (l.outcome = 'skipped') <> (l.reason IS NOT NULL) OR (l.outcome = 'skipped') <> (l.run IS NULL)
	OR l.outcome = 'fired' AND (l.count <> 1 OR l.first <> l.last OR r.run IS NOT NULL AND (r.slot IS NOT l.first OR r.flow <> l.flow))`,

		`SELECT 'run ' || r.run || ' of slot ' || r.slot || ' has ' || count(l.id) || ' firings in the ledger'
FROM _segno_run r LEFT JOIN _segno_ledger l ON l.flow = r.flow AND l.first = r.slot AND l.outcome = 'fired' AND (l.run = r.run OR r.try > 0)
WHERE r.slot IS NOT NULL AND r.backfill IS NULL GROUP BY r.run HAVING count(l.id) <> 1`,

		`SELECT 'run ' || r.run || ' is try ' || r.try || ' of slot ' || r.slot || '; the one before is run ' || p.run || ', ' || p.status
FROM _segno_run r JOIN _segno_run p ON p.flow = r.flow AND p.slot = r.slot AND p.try = r.try - 1
WHERE r.try > 0 AND (p.status NOT IN ('failed', 'undo_failed', 'undoing') OR p.run >= r.run)`,

		// The ledger keeps what became of a slot at its time: another run of it, for
		// a backfill or after a failure, is not in it.
		`SELECT 'run ' || r.run || ' of a backfill is of slot ' || r.slot || ', which has fired'
FROM _segno_run r JOIN _segno_ledger l ON l.flow = r.flow AND l.first = r.slot AND l.outcome = 'fired' WHERE r.backfill IS NOT NULL`,

		`SELECT 'run ' || r.run || ' is try ' || r.try || ' of slot ' || r.slot || ', which has not fired'
FROM _segno_run r LEFT JOIN _segno_ledger l ON l.flow = r.flow AND l.first = r.slot AND l.outcome = 'fired'
WHERE r.try > 0 AND r.backfill IS NULL AND l.id IS NULL`,

		`SELECT 'backfill ' || b.id || ' has made ' || b.runs || ' of ' || b.count || ' runs, there are ' || count(r.run)
FROM _segno_backfill b LEFT JOIN _segno_run r ON r.backfill = b.id AND r.try = 0 AND r.flow = b.flow AND r.slot BETWEEN b.first AND b.cursor
GROUP BY b.id HAVING b.runs < count(r.run) OR b.runs > b.count OR (b.done IS NOT NULL) <> (b.cursor >= b.last)`,

		`SELECT 'run ' || r.run || ' stands for ' || r.missed || ' missed slots, the ledger has ' || coalesce(sum(l.count), 0)
FROM _segno_run r LEFT JOIN _segno_ledger l ON l.run = r.run AND l.outcome = 'coalesced'
WHERE NOT EXISTS (SELECT 1 FROM _segno_event e WHERE e.flow = r.flow AND e.kind = 'clock_rollback')
GROUP BY r.run HAVING r.missed <> coalesce(sum(l.count), 0) OR r.first_missed IS NOT min(l.first)`,

		`SELECT 'flow ' || f.id || ' counts ' || f.fired || ' slots that fired, the ledger has ' || count(l.id)
FROM _segno_flow f LEFT JOIN _segno_ledger l ON l.flow = f.flow AND l.outcome = 'fired'
WHERE f.pruned IS NULL GROUP BY f.flow HAVING f.fired > count(l.id)`,
	)
}

// ledger follows one flow through its stretches. What the slots are is worked
// out anew here, not asked of segno: it may be wrong about them.
type ledger struct {
	c     *checker
	flow  scheduled
	after func(slot int64) int64 // the slot after one; nil: cannot be told
	grids []grid                 // of which the last is in force
}

// A grid is what an interval has its slots on. It begins anew when a clock that
// was set back has moved the next slot out of reach: slots of an older grid
// may then lie ahead of the time. Anything else has one.
type grid struct {
	anchor int64 // its first slot; 0: cannot be told
	last   int64 // slot on record; 0: none
}

type scheduled struct {
	id, schedule               string
	anchor, cursor, registered int64
	pruned                     int64 // up to this slot the ledger need not be whole
	changed                    bool
	back                       bool   // the cursor was set back
	anew                       string // the notes of when the grid began anew
}

// next takes the next row.
func (l *ledger) next(scan func(...any) error) error {
	var f scheduled
	var first, last, count sql.NullInt64
	err := scan(&f.id, &f.schedule, &f.anchor, &f.cursor, &f.registered, &f.pruned, &f.changed, &f.back, &f.anew, &first, &last, &count)
	if err != nil {
		return err
	}
	if f.id != l.flow.id {
		l.close()
		*l = ledger{c: l.c, flow: f, after: f.after(), grids: f.grids()}
	}
	if first.Valid {
		l.stretch(first.Int64, last.Int64, count.Int64)
	}
	return nil
}

func (l *ledger) fault(format string, args ...any) {
	l.c.fault("slots of flow %s: "+format, append([]any{l.flow.id}, args...)...)
}

// grids lists the flow's grids.
func (f *scheduled) grids() []grid {
	first := grid{}
	if f.anew == "" && f.interval() > 0 {
		first.anchor = f.anchor
		for d := f.interval(); first.anchor < f.registered; { // one that lies before is a phase only
			first.anchor += (f.registered - first.anchor + d - 1) / d * d
		}
	}
	grids := []grid{first}
	for _, note := range strings.Split(f.anew, ",") {
		at, err := time.Parse(time.RFC3339Nano, strings.TrimPrefix(note, "next at "))
		if err == nil && f.interval() > 0 {
			grids = append(grids, grid{anchor: at.UnixMicro()})
		}
	}
	return grids
}

// on returns the grid that a slot lies on.
func (l *ledger) on(slot int64) (g *grid, inForce bool) {
	d := l.flow.interval()
	for i := len(l.grids) - 1; i > 0; i-- {
		if g := &l.grids[i]; slot >= g.anchor && (slot-g.anchor)%d == 0 {
			return g, i == len(l.grids)-1
		}
	}
	return &l.grids[0], len(l.grids) == 1
}

// stretch checks one row of the ledger, and against the one before it.
func (l *ledger) stretch(first, last, count int64) {
	at := func(t int64) string { return time.UnixMicro(t).UTC().Format(time.RFC3339Nano) }
	g, inForce := l.on(first)
	// What was decided ahead of a cursor that was set back has holes.
	loose := l.flow.back && (!inForce || first > l.flow.cursor)
	switch {
	case last < first, count < 1, (count == 1) != (first == last) && l.after != nil:
		l.fault("%d from %s to %s", count, at(first), at(last))
	case loose, l.after == nil && l.flow.anew != "":
	case g.last != 0 && first <= g.last:
		l.fault("%s has two outcomes", at(first))
	case l.after == nil:
	case g.last != 0 && first > l.flow.pruned && g.last >= l.flow.pruned && l.after(g.last) != first:
		l.fault("between %s and %s, %s has no outcome", at(g.last), at(first), at(l.after(g.last)))
	case g.last == 0 && l.flow.pruned == 0 && g.anchor != 0 && first != g.anchor && first != l.after(g.anchor): // SkipFirst leaves one out
		l.fault("%s is the first, its grid begins at %s", at(first), at(g.anchor))
	case !l.spans(first, last, count):
		l.fault("those from %s to %s are not %d", at(first), at(last), count)
	}
	if !loose {
		g.last = last
	}
}

// spans reports whether there are count slots from first to last.
func (l *ledger) spans(first, last, count int64) bool {
	slot, n := first, int64(1)
	for slot < last && n < min(count, maxSlots) {
		slot = l.after(slot)
		n++
	}
	return slot == last && n == count || count > maxSlots
}

// close checks that the ledger goes up to the cursor.
func (l *ledger) close() {
	if l.after == nil || l.flow.cursor == 0 {
		return
	}
	g := l.grids[len(l.grids)-1]
	from := g.last
	if from == 0 { // nothing was decided yet; an anchor that SkipFirst left out is no slot
		from = max(g.anchor, l.flow.registered)
	}
	if next := l.after(from); next <= l.flow.cursor || g.last > l.flow.cursor {
		l.fault("the last on record is %d, the cursor stands at %d", g.last, l.flow.cursor)
	}
}

// interval returns the distance of an interval's slots, 0 for anything else.
func (f *scheduled) interval() int64 {
	kind, rest, _ := strings.Cut(f.schedule, " ")
	if d, err := time.ParseDuration(rest); err == nil && kind == "every" && !f.changed {
		return d.Microseconds()
	}
	return 0
}

// after returns how to find the next slot of the flow, nil if that cannot be told.
func (f *scheduled) after() func(int64) int64 {
	kind, rest, _ := strings.Cut(f.schedule, " ")
	if d := f.interval(); d > 0 {
		return func(t int64) int64 { return t + d }
	}
	if kind == "cron" && !f.changed {
		return cronAfter(rest)
	}
	return nil
}

// cronAfter asks robfig/cron, which is right in UTC unless both day fields are
// given: it does not know how */2 combines there.
func cronAfter(expr string) func(int64) int64 {
	fields := strings.Fields(expr)
	n := len(fields)
	if strings.Contains(expr, "=") || n < 5 || fields[n-3] != "*" && fields[n-1] != "*" {
		return nil
	}
	parser := cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)
	spec, err := parser.Parse(expr)
	if err != nil {
		return nil
	}
	return func(t int64) int64 {
		next := spec.Next(time.UnixMicro(t).UTC())
		if next.IsZero() { // not within five years
			return math.MaxInt64
		}
		return next.UnixMicro()
	}
}
