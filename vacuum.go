package segno

import (
	"context"
	"time"

	"github.com/segnodev/segno/store"
)

const (
	vacuumPages = 64                     // given back at a time
	vacuumIdle  = time.Second            // the writer has had nothing to do for so long
	vacuumPause = 100 * time.Millisecond // between two steps
	vacuumSlack = 1024                   // free pages that are left for what is written next
)

// vacuum makes the file smaller behind what was deleted, as long as nobody else
// has anything to write. Some of the free pages are left: what is written next
// would only make the file larger again.
func (p *pruner) vacuum(ctx context.Context) error {
	if !p.pruned {
		return nil
	}
	if ok, err := p.store.Vacuums(ctx); err != nil || !ok {
		p.pruned = false
		return err
	}
	was, wait := p.store.Commits(), vacuumIdle
	for {
		free, pages, err := p.store.Free(ctx)
		if err != nil {
			return err
		}
		over := free - max(vacuumSlack, pages/10)
		if over <= 0 {
			p.pruned = false
			return nil
		}
		if !pause(ctx, wait) || p.store.Commits() != was {
			return nil // the next pass tries again
		}
		n := int(min(vacuumPages, over))
		if err := p.update(ctx, func(tx *store.Tx) error { return tx.Vacuum(n) }); err != nil {
			return err
		}
		was, wait = was+1, vacuumPause
	}
}
