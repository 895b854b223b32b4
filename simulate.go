package segno

import (
	"fmt"
	"slices"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// An Outage is a time in which the program does not run.
type Outage struct{ From, To time.Time }

// SimulateOptions say what the runs of a simulation do. In the zero value each
// takes no time and completes.
type SimulateOptions struct {
	// Run says how long the run of a slot takes, and whether it fails.
	Run func(slot time.Time) (took time.Duration, err error)
}

// A SlotOutcome is what becomes of a stretch of slots, as in segno_slots.
type SlotOutcome struct {
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Count   int       `json:"count"`
	Outcome string    `json:"outcome"` // fired, coalesced, skipped
	Reason  string    `json:"reason,omitempty"`
	At      time.Time `json:"at"` // when it is decided
}

// maxSimulated bounds how many decisions a simulation makes.
const maxSimulated = 10_000_000

// Simulate returns what would become of a flow's slots, if it were registered at
// from and the program ran until to, but for the outages: without a database, by
// the same decisions that a scheduler makes. Of the flow its Schedule and its
// policies matter; it needs no Workflow. Backoff is taken without jitter. It
// returns the error that Add would, and ErrConfig for a time that runs backwards.
func Simulate(f Flow, outages []Outage, from, to time.Time, o ...SimulateOptions) ([]SlotOutcome, error) {
	if f.ID == "" {
		f.ID = "simulated"
	}
	if f.Workflow == nil {
		f.Workflow = Workflow[string, struct{}]{Initial: "done", Steps: Steps[string, struct{}]{"done": {Final: true}}}
	}
	f.Backoff.Jitter = -1
	fl, err := newFlow(f, 0)
	if err == nil && to.Before(from) {
		err = fmt.Errorf("%w: it ends before it begins", ErrConfig)
	}
	if err != nil {
		return nil, err
	}
	s := &simulation{
		f: fl, now: instant(from), to: instant(to), run: first(o).Run, outages: slices.Clone(outages),
		row: store.Flow{ID: f.ID, Outcome: string(StatusIdle), Schedule: f.Schedule.String(), Registered: instant(from)},
	}
	slices.SortFunc(s.outages, func(a, b Outage) int { return a.From.Compare(b.From) })
	s.f.firstSlot(&s.row, s.now)
	s.f.plan(&s.row, s.now)
	err = s.play()
	return s.out, err
}

// simulation is a flow in a world without a file.
type simulation struct {
	f       *flow
	row     store.Flow
	outages []Outage
	run     func(time.Time) (time.Duration, error)
	now, to time.Time
	open    []engine.Head // runs that have not ended, by their end
	out     []SlotOutcome
}

// play moves the time from one event to the next.
func (s *simulation) play() error {
	for range maxSimulated {
		next := s.row.Next
		if len(s.open) > 0 && (next.IsZero() || s.open[0].Ended.Before(next)) {
			next = s.open[0].Ended
		}
		if next.IsZero() || next.After(s.to) {
			return nil
		}
		s.now = s.awake(later(next, s.now))
		if s.now.After(s.to) {
			return nil
		}
		s.endRuns()
		if !s.row.Next.IsZero() && !s.row.Next.After(s.now) {
			s.decide()
		}
	}
	return fmt.Errorf("%w: more than %d decisions", ErrConfig, maxSimulated)
}

// awake returns t, or the end of the outage that it falls into.
func (s *simulation) awake(t time.Time) time.Time {
	for _, o := range s.outages {
		if !t.Before(o.From) && t.Before(o.To) {
			t = instant(o.To)
		}
	}
	return t
}

// endRuns settles the runs that have ended.
func (s *simulation) endRuns() {
	for len(s.open) > 0 && !s.open[0].Ended.After(s.now) {
		h := s.open[0]
		s.open = s.open[1:]
		s.row.Active--
		h.Ended = s.now
		s.f.outcome(&s.row, &h)
		if s.f.Schedule.kind == fixedDelay {
			s.row.Next = s.now.Add(s.f.Schedule.d)
		}
		s.f.plan(&s.row, s.now)
	}
}

// decide does what apply does with a verdict, but for the file.
func (s *simulation) decide() {
	v := s.f.verdict(&s.row, nil, s.now)
	if v.resume {
		s.row.EndPause()
	}
	if !v.upto.Equal(s.row.Cursor) {
		s.row.RetrySlot, s.row.RetryTry = time.Time{}, 0
	}
	s.row.Cursor = v.upto
	if s.f.Schedule.kind == fixedDelay && len(v.decisions) > 0 {
		s.row.Next = time.Time{}
	}
	var missed []decision
	for _, d := range v.decisions {
		switch d.outcome {
		case coalesced:
			missed = append(missed, d)
		case fired:
			s.fire(d, missed)
			missed = nil
		default:
			s.record(d)
		}
	}
	if slot, try := s.row.RetrySlot, s.row.RetryTry; v.retry {
		s.row.RetrySlot, s.row.RetryTry = time.Time{}, 0
		if s.f.Schedule.kind == fixedDelay {
			s.row.Next = time.Time{}
		}
		if s.f.Overlap != Skip || s.row.Open(false) == 0 {
			s.begin(slot, try)
		}
	}
	s.f.plan(&s.row, s.now)
}

func (s *simulation) record(d decision) {
	s.out = append(s.out, SlotOutcome{First: d.first, Last: d.last, Count: d.count, Outcome: d.outcome, Reason: d.reason, At: s.now})
}

// fire begins the run of a slot, unless one is open that forbids it.
func (s *simulation) fire(d decision, missed []decision) {
	busy := s.f.Overlap == Skip && s.row.Open(false) > 0
	for _, d := range append(missed, d) {
		if busy {
			d.outcome, d.reason = skipped, "overlap"
		}
		s.record(d)
	}
	if !busy {
		s.row.Fired++
		s.begin(d.last, 0)
	}
}

// begin lets a run of a slot begin; under Replace the open ones are over.
func (s *simulation) begin(slot time.Time, try int) {
	if s.f.Overlap == Replace {
		s.row.Active -= len(s.open)
		s.open = nil
	}
	var took time.Duration
	var err error
	if s.run != nil {
		took, err = s.run(slot)
	}
	h := engine.Head{Slot: slot, Try: try, Started: s.now, Status: engine.Completed, Ended: s.awake(s.now.Add(max(took, 0)))}
	if err != nil {
		h.Status, h.Error = engine.Failed, err.Error()
	}
	s.row.Active++
	s.row.LastRun = s.now
	i, _ := slices.BinarySearchFunc(s.open, h, func(a, b engine.Head) int { return a.Ended.Compare(b.Ended) })
	s.open = slices.Insert(s.open, i, h)
}
