package engine

import (
	"context"
	"database/sql"
	"time"
)

// A Journal keeps runs. Every method that writes has synced when it returns nil.
type Journal interface {
	// Commit makes one change durable: it replaces the head whose Seq is
	// c.Before.Seq by c.After and appends c.Entries. On success it sets
	// c.After.Seq, Last, UndoAt, Child and, of a waiting run, Wake. It returns ErrCancelRequested,
	// having written nothing, if the run's cancel flag is set and c does not
	// yield to it, and an *OnCommitError if one of c.OnCommit failed.
	Commit(ctx context.Context, c *Change) error
	// Save makes memos of the head's visit durable, together with what joins
	// them. It returns ErrEnded if another attempt has the visit, and an
	// *OnCommitError as Commit does.
	Save(ctx context.Context, h *Head, memos map[string][]byte, onCommit []func(Tx) error) error
	// Memos returns the memos of the head's visit.
	Memos(ctx context.Context, h *Head) (map[string][]byte, error)
	// Take gives the head's visit the oldest signal of a name and makes its
	// payload the given memo; false: there is none.
	Take(ctx context.Context, h *Head, name, memo string) (payload []byte, found bool, err error)
	// Run returns the head of another run.
	Run(ctx context.Context, run int64) (Head, error)
	// Entry returns one entry of the journal.
	Entry(ctx context.Context, id int64) (Entry, error)
	// Undone returns the visits of a run whose undo has succeeded.
	Undone(ctx context.Context, h *Head) (map[int]bool, error)
}

// A Change is one commit of one run.
type Change struct {
	Before    *Head
	After     Head
	Entries   []Entry
	OnCommit  []func(Tx) error
	Memos     map[string][]byte // upserted with the change
	DropMemos bool              // the visit's memos are of no more use
	// Yields says that this change already takes account of the cancel flag.
	Yields bool
	Call   *Head // a run to be created, whose end wakes this one
	Recall bool  // cancel the run called before
	// Why is the error behind the change, and Closed says of a rollback that its
	// visit has succeeded: for the observer, not stored.
	Why    error
	Closed bool
}

// An Entry is one line of a run's journal.
type Entry struct {
	ID        int64
	Run       int64
	Visit     int
	Kind      Kind
	State     string
	Attempt   int
	Version   int
	At        time.Time
	Data      []byte // nil: as in the entry before that has some
	Cause     Cause
	Error     string
	Uncertain bool
	// Undo is the state of the visit this entry closes, if that visit is to be
	// undone in a rollback: the entry then carries the data Undo gets.
	Undo     string
	Prev     int64
	PrevUndo int64
}

// UndoVisit is the visit that an entry with Undo set closes.
func (e *Entry) UndoVisit() int {
	if e.Kind == KindEnter {
		return e.Visit - 1
	}
	return e.Visit
}

// Tx is what a function that joins a commit may do: SQL, nothing else.
type Tx interface {
	Exec(query string, args ...any) (sql.Result, error)
	Query(query string, args ...any) (*sql.Rows, error)
	QueryRow(query string, args ...any) *sql.Row
}

// An OnCommitError is the failure of a function that was to join a commit.
// Nothing of that commit was written.
type OnCommitError struct{ Err error }

// Error says that the function failed, and why.
func (e *OnCommitError) Error() string { return "on commit: " + e.Err.Error() }

// Unwrap returns the function's error.
func (e *OnCommitError) Unwrap() error { return e.Err }
