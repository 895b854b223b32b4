package store

import (
	"context"
	"strconv"
)

// Commits counts the transactions of the writer: it is idle while the number
// stays as it is.
func (s *Store) Commits() uint64 { return s.w.commits.Load() }

// Free returns how many pages of the file hold nothing, and how many there are.
func (s *Store) Free(ctx context.Context) (free, pages int64, err error) {
	if err = s.queryRow(ctx, "PRAGMA freelist_count").Scan(&free); err == nil {
		err = s.queryRow(ctx, "PRAGMA page_count").Scan(&pages)
	}
	return free, pages, err
}

// Vacuums reports whether free pages can be given back to the file system: an
// adopted file keeps them for what is written next.
func (s *Store) Vacuums(ctx context.Context) (bool, error) {
	var mode int
	err := s.queryRow(ctx, "PRAGMA auto_vacuum").Scan(&mode)
	return mode == 2, err
}

// Vacuum gives so many free pages back to the file system.
func (tx *Tx) Vacuum(pages int) error {
	rows, err := tx.w.conn.QueryContext(background, "PRAGMA incremental_vacuum("+strconv.Itoa(pages)+")")
	if err != nil {
		return tx.note(err)
	}
	defer rows.Close()
	tx.wrote = true
	for rows.Next() { // a page each
	}
	return tx.note(rows.Err())
}
