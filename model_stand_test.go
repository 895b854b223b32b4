package segno_test

import (
	"context"
	"errors"
	"fmt"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// A liveModel knows how the flow stands by counting: how its runs have ended,
// and what was asked of it.
type liveModel struct {
	*liveFlow
	liveSchedule
	schedules []liveSchedule
	unsure    bool      // whether the last operation was done before the process died
	stepped   bool      // the last operation set the clock
	begun     time.Time // when it was started, or its gate moved, last; in the bubble's time

	streak        int
	tripped       bool
	closed, until time.Time // the gate
	paused        bool
	pauseUntil    time.Time
	fired         int64 // slots
	cursor        int64
	ends          int64 // the entry of the last end that was counted
}

// cleared is what a reset leaves.
func (m *liveModel) cleared() {
	m.streak, m.tripped, m.closed, m.until = 0, false, time.Time{}, time.Time{}
}

// holds reports whether a pause holds.
func (m *liveModel) holds() bool {
	return m.paused && (m.pauseUntil.IsZero() || m.pauseUntil.After(m.now()))
}

// count counts the runs that have ended, in the order of their commits.
func (m *liveModel) count() error {
	rows, err := m.run.DB().Query(`SELECT j.id, r.status, coalesce(r.started, r.ended), r.ended FROM _segno_journal j JOIN _segno_run r USING (run)
WHERE j.kind = 'end' AND j.id > ? ORDER BY j.id`, m.ends)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var status string
		var started, ended int64
		if err := rows.Scan(&m.ends, &status, &started, &ended); err != nil {
			return err
		}
		m.ended(status, time.UnixMicro(started).UTC(), time.UnixMicro(ended).UTC())
	}
	return rows.Err()
}

// ended counts a run. One that began before the gate closed moves nothing.
func (m *liveModel) ended(status string, started, ended time.Time) {
	switch {
	case status == "cancelled", ended.Before(m.until) && started.Before(m.closed):
	case status == "failed":
		m.streak++
		limit := m.flow.Backoff.StreakLimit
		m.tripped = m.tripped || limit > 0 && m.streak >= limit
		m.closed, m.until = ended, ended.Add(m.flow.Backoff.Delay(m.streak))
		if m.tripped {
			m.closed, m.until = time.Time{}, time.Time{}
		}
	case !m.tripped:
		m.cleared()
	}
}

// check compares, and checks what must hold whatever was done.
func (m *liveModel) check(before *liveModel) error {
	if err := checkFile(m.path); err != nil {
		return err
	}
	info, err := m.run.Status(context.Background(), "f")
	if err == nil {
		err = m.count()
	}
	if err != nil {
		return err
	}
	if m.unsure {
		m.adopt(&info)
	}
	if m.stepped { // a gate lasts no longer than its delay from then on
		if most := m.now().Add(m.flow.Backoff.Delay(m.streak)); info.NextEligible.After(most) {
			return fmt.Errorf("the gate opens at %v, later than %v", info.NextEligible, most)
		}
		m.until = info.NextEligible
		if !m.pauseUntil.IsZero() { // one that had ended by the clock before may hold again, or not
			m.paused = info.Paused
		}
		set, err := m.number(`SELECT gate_set FROM _segno_flow`)
		if m.closed = time.UnixMicro(set); err != nil {
			return err
		}
	}
	if err := m.compare(&info); err != nil {
		return err
	}
	if !m.until.Equal(before.until) {
		m.begun = time.Now()
	}
	if err := m.compareFile(before); err != nil {
		return err
	}
	m.unsure, m.stepped = false, false
	return m.steps.check(m.flow.Overlap)
}

// adopt takes over how the flow stands, where it died while it was asked for
// something else.
func (m *liveModel) adopt(info *segno.FlowInfo) {
	m.streak, m.tripped, m.until = info.FailureStreak, info.Status == segno.StatusTripped, info.NextEligible
	m.paused, m.pauseUntil = info.Paused, info.PauseUntil
	if m.until.IsZero() {
		m.closed = time.Time{}
	}
}

// compare holds the flow's status against the model.
func (m *liveModel) compare(info *segno.FlowInfo) error {
	type stand struct {
		streak          int
		tripped, paused bool
		gate            time.Time
	}
	got := stand{info.FailureStreak, info.Status == segno.StatusTripped, info.Paused, info.NextEligible}
	want := stand{m.streak, m.tripped, m.holds(), m.until}
	if got != want {
		return fmt.Errorf("the flow stands so: got = %+v, want %+v", got, want)
	}
	return nil
}

// compareFile holds cursor and counts against those before the operation.
func (m *liveModel) compareFile(before *liveModel) error {
	row := m.run.DB().QueryRow(`SELECT f.cursor, f.fired, count(l.id), coalesce(max(r.try), 0)
FROM _segno_flow f LEFT JOIN _segno_ledger l ON l.flow = f.flow AND l.outcome = 'fired' LEFT JOIN _segno_run r ON r.flow = f.flow AND r.slot = l.first GROUP BY f.flow`)
	var counted, try int64
	if err := row.Scan(&m.cursor, &m.fired, &counted, &try); err != nil {
		return err
	}
	now := m.now()
	blocked := m.tripped && before.tripped || m.holds() && before.paused && m.pauseUntil.Equal(before.pauseUntil) ||
		m.until.After(now) && m.until.Equal(before.until)
	switch limit := int64(m.flow.MaxRuns); {
	case m.fired < before.fired:
		return fmt.Errorf("%d slots have fired, it were %d", m.fired, before.fired)
	case limit > 0 && m.fired > limit:
		return fmt.Errorf("%d slots have fired", m.fired)
	case int(try) > m.flow.SlotRetries:
		return fmt.Errorf("a slot was tried again %d times", try)
	case blocked && m.fired > before.fired && !m.unsure:
		return fmt.Errorf("%d slots fired, and none could", m.fired-before.fired)
	case m.cursor < before.cursor && !m.stepped:
		return fmt.Errorf("the cursor is %v, and was %v", time.UnixMicro(m.cursor).UTC(), time.UnixMicro(before.cursor).UTC())
	}
	return m.prompt(now)
}

// patience is how long slots may wait to go on record that cannot fire.
const patience = 12 * time.Second

// prompt checks that no slot waits without a cause: for the gate, or for a run
// that is open.
func (m *liveModel) prompt(now time.Time) error {
	open, err := m.number(`SELECT active + queued FROM _segno_flow`)
	if err != nil {
		return err
	}
	over := m.flow.MaxRuns > 0 && m.fired >= int64(m.flow.MaxRuns)
	late := time.Since(m.begun) < patience && (m.holds() || m.tripped)
	if over || late || open > 0 || m.until.After(now) {
		return nil
	}
	if m.delay {
		next, err := m.number(`SELECT next FROM _segno_flow`)
		if at := time.UnixMicro(next).UTC(); err == nil && (next == 0 || at.Sub(now) > m.period || at.Before(now)) {
			return fmt.Errorf("the next slot is %v, want one within %v", at, m.period)
		}
		return err
	}
	from := time.UnixMicro(m.cursor).UTC()
	if m.until.After(from) { // slots that were lost to the gate go on record with the next one
		from = m.until
	}
	if now.Sub(from) > m.period+patience {
		return fmt.Errorf("no slot was decided since %v, of a schedule with %v between two", from, m.period)
	}
	return nil
}

// calm lets the flow do its work in peace: in the end no run is open.
func (m *liveModel) calm() error {
	m.liveFlow.doom(0, false)
	m.steps.set(false, 0)
	ctx := context.Background()
	err := errors.Join(m.run.ResumeFlow(ctx, "f"), m.run.ResetFlow(ctx, "f"))
	m.paused = false
	m.cleared()
	time.Sleep(6 * time.Minute) // longer than any gate
	synctest.Wait()
	if open, err := m.number(`SELECT active + queued FROM _segno_flow`); err != nil || open > 0 {
		return fmt.Errorf("in the end %d runs are open, %v", open, err)
	}
	before := *m
	return errors.Join(err, m.check(&before))
}
