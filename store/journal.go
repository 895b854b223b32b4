package store

import (
	"strings"

	"github.com/segnodev/segno/engine"
)

// entriesAtOnce is how many entries one statement appends: most of what a
// statement costs is not its row. What is left over takes one each.
const entriesAtOnce = 16

var (
	entrySQL   = "INSERT INTO _segno_journal (" + entryColumns + ") VALUES (" + marks(15) + ")"
	entriesSQL = entrySQL + strings.Repeat(", ("+marks(15)+")", entriesAtOnce-1)
)

// append adds entries to the journal, in the order of their ids. They are written
// together with those of the batch's other requests: at its end, or before anybody
// can look at the journal or take a part of the batch back.
func (tx *Tx) append(entries ...engine.Entry) {
	tx.entries = append(tx.entries, entries...)
	tx.w.nextEntry += int64(len(entries))
}

// flushEntries writes the entries that were added.
func (tx *Tx) flushEntries() error {
	pending := tx.entries
	tx.entries = tx.entries[:0]
	for len(pending) > 0 {
		query, n := entrySQL, 1
		if len(pending) >= entriesAtOnce {
			query, n = entriesSQL, entriesAtOnce
		}
		args := tx.w.args[:0]
		for i := range n {
			args = appendValues(args, &pending[i])
		}
		tx.w.args = args
		if _, err := tx.do(query, args...); err != nil {
			return err
		}
		pending = pending[n:]
	}
	return nil
}

// appendValues adds the columns of entryColumns to a statement's arguments.
func appendValues(args []any, e *engine.Entry) []any {
	var data, uncertain any
	if e.Data != nil {
		data = string(e.Data)
	}
	if e.Uncertain {
		uncertain = 1
	}
	return append(args, e.ID, e.Run, e.Visit, e.Kind, e.State, e.Attempt, e.Version, micros(e.At), data,
		text(string(e.Cause)), text(e.Error), uncertain, text(e.Undo), number(e.Prev), number(e.PrevUndo))
}

// Entry returns an entry of the journal as the transaction sees it.
func (tx *Tx) Entry(id int64) (engine.Entry, error) {
	if err := tx.flushEntries(); err != nil {
		return engine.Entry{}, err
	}
	e, err := scanEntry(tx.row(selectEntry, id))
	return e, tx.note(err)
}
