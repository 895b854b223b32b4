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
	c.each(`SELECT f.id, f.schedule, coalesce(f.anchor, 0), coalesce(f.cursor, 0), coalesce(f.pruned, 0),
	EXISTS (SELECT 1 FROM _segno_event e WHERE e.flow = f.flow AND e.kind = 'schedule_changed'),
	l.first, l.last, l.count, l.outcome
FROM _segno_flow f LEFT JOIN _segno_ledger l USING (flow) ORDER BY f.flow, l.first`, l.next)
	l.close()
	c.rows(
		`SELECT 'a slot of flow ' || l.flow || ' was ' || l.outcome || ' (' || coalesce(l.reason, 'no reason') || ') for run ' || coalesce(l.run, 'none')
FROM _segno_ledger l LEFT JOIN _segno_run r USING (run)
WHERE (l.outcome = 'skipped') <> (l.reason IS NOT NULL) OR (l.outcome = 'skipped') <> (l.run IS NULL)
	OR l.outcome = 'fired' AND (l.count <> 1 OR l.first <> l.last OR r.run IS NOT NULL AND (r.slot IS NOT l.first OR r.flow <> l.flow))`,

		`SELECT 'run ' || r.run || ' of slot ' || r.slot || ' has ' || count(l.id) || ' firings in the ledger'
FROM _segno_run r LEFT JOIN _segno_ledger l ON l.flow = r.flow AND l.first = r.slot AND l.outcome = 'fired' AND l.run = r.run
WHERE r.slot IS NOT NULL AND r.try = 0 AND r.backfill IS NULL GROUP BY r.run HAVING count(l.id) <> 1`,

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
GROUP BY r.run HAVING r.missed <> coalesce(sum(l.count), 0) OR r.first_missed IS NOT min(l.first)`,
	)
}

// ledger follows one flow through its stretches. What the slots are is worked
// out anew here, not asked of segno: it may be wrong about them.
type ledger struct {
	c     *checker
	flow  scheduled
	after func(slot int64) int64 // the slot after one; nil: cannot be told
	last  int64                  // slot on record; 0: none
}

type scheduled struct {
	id, schedule   string
	anchor, cursor int64
	pruned         int64 // up to this slot the ledger need not be whole
	changed        bool
}

// next takes the next row.
func (l *ledger) next(scan func(...any) error) error {
	var f scheduled
	var first, last, count sql.NullInt64
	var outcome sql.NullString
	if err := scan(&f.id, &f.schedule, &f.anchor, &f.cursor, &f.pruned, &f.changed, &first, &last, &count, &outcome); err != nil {
		return err
	}
	if f.id != l.flow.id {
		l.close()
		*l = ledger{c: l.c, flow: f, after: f.after()}
	}
	if first.Valid {
		l.stretch(first.Int64, last.Int64, count.Int64)
	}
	return nil
}

func (l *ledger) fault(format string, args ...any) {
	l.c.fault("slots of flow %s: "+format, append([]any{l.flow.id}, args...)...)
}

// stretch checks one row of the ledger against the one before it.
func (l *ledger) stretch(first, last, count int64) {
	at := func(t int64) string { return time.UnixMicro(t).UTC().Format(time.RFC3339Nano) }
	switch {
	case last < first, count < 1, (count == 1) != (first == last) && l.after != nil:
		l.fault("%d from %s to %s", count, at(first), at(last))
	case l.last != 0 && first <= l.last:
		l.fault("%s has two outcomes", at(first))
	case l.after == nil:
	case l.last != 0 && first > l.flow.pruned && l.last >= l.flow.pruned && l.after(l.last) != first:
		l.fault("between %s and %s, %s has no outcome", at(l.last), at(first), at(l.after(l.last)))
	case !l.spans(first, last, count):
		l.fault("those from %s to %s are not %d", at(first), at(last), count)
	}
	l.last = last
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
	from := l.last
	if from == 0 { // nothing was decided yet; an anchor that SkipFirst left out is no slot
		from = l.flow.anchor
	}
	if next := l.after(from); next <= l.flow.cursor || l.last > l.flow.cursor {
		l.fault("the last on record is %d, the cursor stands at %d", l.last, l.flow.cursor)
	}
}

// after returns how to find the next slot of the flow, nil if that cannot be told.
func (f *scheduled) after() func(int64) int64 {
	kind, rest, _ := strings.Cut(f.schedule, " ")
	switch {
	case f.changed:
	case kind == "every":
		if d, err := time.ParseDuration(rest); err == nil {
			return func(t int64) int64 { return t + d.Microseconds() }
		}
	case kind == "cron":
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
