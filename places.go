package segno

import "sync"

// places counts the runs that execute, over all flows and per flow. A run
// holds its place from before it is claimed until its goroutine is back.
type places struct {
	mu    sync.Mutex
	free  int // below zero while abandoned goroutines hold places
	used  map[string]int
	short bool // somebody went away without one
}

// seat is whose place a run takes: its flow's, or nobody's for a run that
// another one has called, which only the bound over all flows governs.
type seat struct {
	flow  string
	limit int // 0: none
}

// seat returns where a run of the flow sits.
func (f *flow) seat(called bool) seat {
	if called {
		return seat{}
	}
	return seat{f.ID, f.Overlap.limit()}
}

// take takes a place if there is one.
func (p *places) take(s seat) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.has(s) {
		return false
	}
	p.free--
	p.used[s.flow]++
	return true
}

// room reports whether there is a place, without taking it.
func (p *places) room(s seat) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.has(s)
}

// has is room; the caller holds mu. One that goes away without a place is noted.
func (p *places) has(s seat) bool {
	if p.free <= 0 || s.limit > 0 && p.used[s.flow] >= s.limit {
		p.short = true
		return false
	}
	return true
}

// lack says which place is missing, in the words of Explain: "" if there is one.
func (p *places) lack(s seat) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.free <= 0:
		return ReasonMaxConcurrent
	case s.limit > 0 && p.used[s.flow] >= s.limit:
		return ReasonOverlap
	}
	return ""
}

// force takes a place beyond all limits: for a run whose goroutine
// was lost, together with its first place.
func (p *places) force(s seat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free--
	p.used[s.flow]++
}

// give gives a place back, and reports whether somebody had asked for one in vain.
func (p *places) give(s seat) (wanted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free++
	if p.used[s.flow]--; p.used[s.flow] == 0 {
		delete(p.used, s.flow)
	}
	wanted, p.short = p.short, false
	return wanted
}

// none reports whether there is no place for any flow; the next one to be
// given back is then wanted.
func (p *places) none() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.short = p.short || p.free <= 0
	return p.free <= 0
}

// miss records that somebody waits for a run to end.
func (p *places) miss() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.short = true
}
