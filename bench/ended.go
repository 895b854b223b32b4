package main

import "sync"

// ended tells those who wait for workflows, where an engine has nothing for it.
type ended struct {
	waiting sync.Map // of channels, by id
}

// expect returns what waits for the workflow.
func (e *ended) expect(id string) func() error {
	c := make(chan struct{})
	e.waiting.Store(id, c)
	return func() error { <-c; return nil }
}

// done says that the workflow has ended. After a restart nobody may wait for it.
func (e *ended) done(id string) {
	if c, ok := e.waiting.LoadAndDelete(id); ok {
		close(c.(chan struct{}))
	}
}
