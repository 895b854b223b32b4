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

// take gives the flow a place if there is one.
func (p *places) take(f *flow) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := f.Overlap.limit()
	if p.free <= 0 || limit > 0 && p.used[f.ID] >= limit {
		p.short = true
		return false
	}
	p.free--
	p.used[f.ID]++
	return true
}

// force gives the flow a place beyond all limits: for a run whose goroutine
// was lost, together with its first place.
func (p *places) force(f *flow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free--
	p.used[f.ID]++
}

// give takes a place back, and reports whether somebody had asked for one in vain.
func (p *places) give(f *flow) (wanted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free++
	if p.used[f.ID]--; p.used[f.ID] == 0 {
		delete(p.used, f.ID)
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
