package store

import (
	"context"
	"errors"
	"slices"

	"github.com/segnodev/segno/engine"
)

// A Link is an entry of a run's chain.
type Link struct {
	ID, Visit int64
	Undo      bool  // it closes a visit to be undone
	Size      int64 // bytes of data
}

const selectLinks = `WITH RECURSIVE chain (entry) AS (
	SELECT ?1
	UNION ALL
	SELECT j.prev FROM chain CROSS JOIN _segno_journal j ON j.id = chain.entry WHERE j.prev > ?2
)
SELECT j.id, j.visit, j.undo IS NOT NULL, coalesce(octet_length(j.data), 0) FROM chain CROSS JOIN _segno_journal j ON j.id = chain.entry`

// Links returns a run's chain from its last entry back to the one behind the
// given one, oldest first.
func (s *Reader) Links(ctx context.Context, last, above int64) (links []Link, err error) {
	rows, err := s.query(ctx, selectLinks, last, above)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var l Link
		if err := rows.Scan(&l.ID, &l.Visit, &l.Undo, &l.Size); err != nil {
			return nil, err
		}
		links = append(links, l)
	}
	slices.Reverse(links)
	return links, rows.Err()
}

// A Cut takes entries out of a chain.
type Cut struct {
	Entries []int64
	Relink  [][2]int64 // of the entries left: which, and what then is before it; 0: nothing
}

// Thin plans what is taken out of a chain: entries of visits up to the given
// one that no undo needs, oldest first, each cut of PruneRows rows at most. The
// last link stays. above is the entry before the links; kept is the newest that
// stays and need not be looked at again.
func Thin(links []Link, above, visit int64) (cuts []Cut, kept int64) {
	var cut Cut
	kept = above
	for i := 0; i+1 < len(links) && links[i].Visit <= visit; i++ {
		if links[i].Undo {
			kept = links[i].ID
			continue
		}
		cut.Entries = append(cut.Entries, links[i].ID)
		next := links[i+1]
		full := len(cut.Entries)+len(cut.Relink) >= PruneRows-1
		if full || next.Undo || next.Visit > visit || i+2 == len(links) {
			cut.Relink = append(cut.Relink, [2]int64{next.ID, kept})
		}
		if full {
			cuts, cut = append(cuts, cut), Cut{}
		}
	}
	if len(cut.Entries) > 0 {
		cuts = append(cuts, cut)
	}
	return cuts, kept
}

// Thin takes entries out of the chain of an open run, which goes on meanwhile.
// One that has begun to roll back stays as it is.
func (tx *Tx) Thin(run int64, c Cut) error {
	h, err := tx.Head(run)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && (h.Status.Ended() || h.Status == engine.Undoing):
		return nil
	case err != nil:
		return err
	}
	if _, err := tx.do("DELETE FROM _segno_journal WHERE id IN (SELECT value FROM json_each(?))", list(c.Entries)); err != nil {
		return err
	}
	_, err = tx.do(`UPDATE _segno_journal SET prev = nullif(e.value ->> 1, 0) FROM json_each(?) e WHERE _segno_journal.id = e.value ->> 0`, list(c.Relink))
	return err
}

// Behead deletes the oldest entries of a run to be pruned that has more of them
// than fit in one request, and returns the run as it is then. An undo_failed
// one is failed from now on: it cannot be undone any more.
func (tx *Tx) Behead(run Doomed) (Doomed, error) {
	standing, err := tx.standing([]Doomed{run})
	if err != nil || !standing[run.Run] {
		return Doomed{}, err
	}
	n := min(PruneRows-3, len(run.Entries)-1)
	gone, left := run.Entries[:n], run.Entries[n:]
	ids := make([]int64, n)
	for i, l := range gone {
		ids[i] = l.ID
	}
	undo := int64(0)
	if i := slices.IndexFunc(left, func(l Link) bool { return l.Undo }); i >= 0 {
		undo = left[i].ID
	}
	for _, q := range []struct {
		query string
		args  []any
	}{
		{"DELETE FROM _segno_journal WHERE id IN (SELECT value FROM json_each(?))", []any{list(ids)}},
		{"UPDATE _segno_journal SET prev = NULL WHERE id = ?", []any{left[0].ID}},
		{"UPDATE _segno_journal SET prev_undo = NULL WHERE id = ?", []any{undo}},
		{`UPDATE _segno_run SET undo_at = CASE WHEN undo_at < ?1 THEN 0 ELSE undo_at END,
	status = CASE status WHEN 'undo_failed' THEN 'failed' ELSE status END WHERE run = ?2`, []any{left[0].ID, run.Run}},
	} {
		if _, err := tx.do(q.query, q.args...); err != nil {
			return Doomed{}, err
		}
	}
	run.Entries = left
	return run, nil
}
