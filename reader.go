package segno

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/segnodev/segno/store"
)

// A Reader reads the file of another process, or of none: it takes no lock and
// writes nothing, so it may be used beside a live owner. Its methods may be
// called from several goroutines.
type Reader struct {
	queries
}

// OpenReader opens the file at path to read it. It returns ErrNotFound if there
// is no such file, and ErrForeign, ErrNewer or ErrCorrupt for one that is not
// this program's to read.
func OpenReader(ctx context.Context, path string) (*Reader, error) {
	from, err := store.OpenReader(ctx, path)
	if err != nil {
		return nil, err
	}
	named := func(what string, err error) error { return fmt.Errorf("%s: %w", what, from.Named(err)) }
	return &Reader{queries{from: from, at: wallClock, named: named}}, nil
}

// DB returns a read-only pool for queries of the caller's own: the views, and
// the application's tables.
func (r *Reader) DB() *sql.DB { return r.from.DB() }

// Path returns the absolute path of the file, free of symbolic links.
func (r *Reader) Path() string { return r.from.Path() }

// Close ends reading.
func (r *Reader) Close() error { return r.from.Close() }

// An Owner is the process that runs the flows of a file, or ran them last.
type Owner struct {
	PID   int       `json:"pid"`
	Host  string    `json:"host"`
	Since time.Time `json:"since"`
	Epoch int64     `json:"epoch"` // counts the owners
	Clean bool      `json:"clean"` // it stopped by itself
	Alive bool      `json:"alive"` // it has the file's lock
}

// Owner returns who runs the flows of the file, or ran them last.
func (r *Reader) Owner(ctx context.Context) (Owner, error) {
	o, err := r.from.Owner(ctx)
	if err != nil {
		return Owner{}, r.named("owner", err)
	}
	return Owner(o), nil
}

// queries are what can be asked of a file, by its owner and by a Reader alike.
type queries struct {
	flows map[string]*flow // that the program has registered; a Reader knows none
	seats *places          // nil: a Reader's
	from  *store.Reader
	at    func() time.Time
	named func(what string, err error) error // says what an error is about
}

// Status returns what is known of a flow; ErrNotFound if neither the program
// nor the file has it.
func (q *queries) Status(ctx context.Context, id string) (FlowInfo, error) {
	row, err := q.from.Flow(ctx, id)
	if err != nil {
		return FlowInfo{}, q.named("flow "+id, err)
	}
	return flowInfo(&row, q.at()), nil
}

// List returns what is known of all flows, in the order of their registration,
// orphaned ones last.
func (q *queries) List(ctx context.Context) ([]FlowInfo, error) {
	rows, err := q.from.Flows(ctx)
	if err != nil {
		return nil, q.named("flows", err)
	}
	now := q.at()
	infos := make([]FlowInfo, len(rows))
	for i := range rows {
		infos[i] = flowInfo(&rows[i], now)
	}
	return infos, nil
}

// Run returns what is known of a run, ErrNotFound if there is none.
func (q *queries) Run(ctx context.Context, id RunID) (RunInfo, error) {
	h, err := q.from.Run(ctx, int64(id))
	if err != nil {
		return RunInfo{}, q.named(fmt.Sprintf("run %d", id), err)
	}
	return runInfo(&h), nil
}

// A RunFilter selects runs; its zero value selects the newest 100.
type RunFilter struct {
	Flow   string
	Status []RunStatus // any of these
	Before RunID       // with a smaller id: the last id of a page gives the next
	Limit  int         // 0 means 100
}

// Runs returns the runs that a filter selects, newest first.
func (q *queries) Runs(ctx context.Context, f RunFilter) ([]RunInfo, error) {
	filter := store.Filter{Flow: f.Flow, Before: int64(f.Before), Limit: f.Limit}
	if filter.Limit <= 0 {
		filter.Limit = 100
	}
	for _, s := range f.Status {
		filter.Statuses = append(filter.Statuses, string(s))
	}
	heads, err := q.from.Runs(ctx, filter)
	if err != nil {
		return nil, q.named("runs", err)
	}
	infos := make([]RunInfo, len(heads))
	for i := range heads {
		infos[i] = runInfo(&heads[i])
	}
	return infos, nil
}

// FindRun returns the run of a flow that was triggered with the given key.
func (q *queries) FindRun(ctx context.Context, flow, key string) (RunInfo, error) {
	h, err := q.from.FindRun(ctx, flow, key)
	if err != nil {
		return RunInfo{}, q.named(fmt.Sprintf("run of %s with key %q", flow, key), err)
	}
	return runInfo(&h), nil
}

// History returns the journal of a run, first entry to last.
func (q *queries) History(ctx context.Context, id RunID) ([]Entry, error) {
	entries, err := q.from.History(ctx, int64(id))
	if err != nil {
		return nil, q.named(fmt.Sprintf("run %d", id), err)
	}
	out := make([]Entry, len(entries))
	for i := range entries {
		out[i] = entryInfo(&entries[i])
	}
	return out, nil
}
