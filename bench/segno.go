package main

import (
	"context"

	"github.com/segnodev/segno"
)

type state string

// three is the 3-step workflow.
func three(s setup) segno.Workflow[state, order] {
	do := func(name string, next state) segno.Step[state, order] {
		return segno.Step[state, order]{Do: func(_ context.Context, o *order) (state, error) {
			s.step(name, o)
			return next, nil
		}}
	}
	return segno.Workflow[state, order]{
		Initial: "reserve",
		Steps: segno.Steps[state, order]{
			"reserve": do("reserve", "charge"),
			"charge":  do("charge", "ship"),
			"ship":    do("ship", "done"),
			"done":    {Final: true},
		},
	}
}

func openSegno(path string, s setup) (*engine, error) {
	background, w := context.Background(), three(s)
	sched := segno.New(path, segno.Options{MaxConcurrent: s.flight + 8})
	if err := sched.Add(segno.Flow{ID: "three", Workflow: w, Overlap: segno.Allow(0)}); err != nil {
		return nil, err
	}
	r, err := sched.Start(background)
	if err != nil {
		return nil, err
	}
	return drive(r, w)
}

// drive returns the flow "three" of a running scheduler as an engine.
func drive(r *segno.RunningScheduler, w segno.Workflow[state, order]) (*engine, error) {
	background := context.Background()
	bound, err := segno.Bind(r, "three", w)
	if err != nil {
		return nil, err
	}
	start := func(id string) (func() error, error) {
		run, err := bound.Trigger(background, order{ID: id, Cents: 1250})
		return func() error { _, err := bound.Wait(background, run); return err }, err
	}
	return &engine{start: start, close: func() error { return r.Stop(background) }}, nil
}
