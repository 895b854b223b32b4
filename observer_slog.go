package segno

import (
	"context"
	"log/slog"
	"strings"
)

// SlogObserver returns an observer that logs every event to l; nil means
// slog.Default(). What begins, waits and is checkpointed has the level Debug;
// what succeeds, is resumed or finished Info; retries, open circuits, timeouts,
// cancels, unknown states and failed clean-ups Warn; failures and stuck runs
// Error. The keys are flow, run, state, visit, attempt, and where there is one
// unit, seq, status, due, elapsed, limit and error. Data of runs is not logged,
// other than what a step's own error says.
func SlogObserver(l *slog.Logger) Observer {
	if l == nil {
		l = slog.Default()
	}
	return slogObserver{l}
}

type slogObserver struct{ log *slog.Logger }

// Observe logs the event.
func (o slogObserver) Observe(ctx context.Context, e Event) {
	level := e.level()
	if !o.log.Enabled(ctx, level) {
		return
	}
	o.log.LogAttrs(ctx, level, "segno: "+strings.ReplaceAll(string(e.Kind), "_", " "), e.attrs()...)
}

// level says how much an event matters.
func (e *Event) level() slog.Level {
	switch e.Kind {
	case EventTaskSucceeded, EventUndoSucceeded, EventRunResumed, EventRollbackFinished, EventRunFinished:
		return slog.LevelInfo
	case EventRetry, EventCircuitOpen, EventRunTimedOut, EventRunCancelled, EventUnknownState, EventCleanupFailed:
		return slog.LevelWarn
	case EventTaskFailed, EventUndoFailed:
		return slog.LevelError
	case EventParked:
		if e.Status == RunStuck {
			return slog.LevelError
		}
	}
	return slog.LevelDebug
}

// attrs are the fields of an event that say something.
func (e *Event) attrs() []slog.Attr {
	attrs := make([]slog.Attr, 0, 12)
	if e.Run != 0 {
		attrs = append(attrs, slog.String("flow", e.Flow), slog.Int64("run", int64(e.Run)), slog.String("state", e.State),
			slog.Int("visit", e.Visit), slog.Int("attempt", e.Attempt))
	}
	if e.Unit != "" {
		attrs = append(attrs, slog.String("unit", e.Unit))
	}
	switch e.Kind {
	case EventCheckpoint, EventRunResumed:
		attrs = append(attrs, slog.Int64("seq", e.Seq))
	case EventParked, EventRunFinished:
		attrs = append(attrs, slog.String("status", string(e.Status)))
	case EventRunTimedOut:
		attrs = append(attrs, slog.Duration("elapsed", e.Elapsed), slog.Duration("limit", e.Limit))
	}
	if !e.Due.IsZero() {
		attrs = append(attrs, slog.Time("due", e.Due))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	return attrs
}
