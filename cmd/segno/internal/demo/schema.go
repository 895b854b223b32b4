package demo

import (
	"errors"

	"github.com/segnodev/segno"
)

// schema makes the demo's own tables, in the same file as segno's. On purpose
// they have no keys that would refuse a line, a posting or a report that is
// written twice: the proof would see it.
func schema(tx segno.Tx) error {
	_, err := tx.Exec(`
CREATE TABLE IF NOT EXISTS demo_line (line INTEGER NOT NULL, kind TEXT NOT NULL, words INTEGER NOT NULL, bytes INTEGER NOT NULL, sum INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS demo_count (kind TEXT PRIMARY KEY, lines INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS demo_order (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, cents INTEGER NOT NULL, run INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS demo_posting (order_id INTEGER NOT NULL, what TEXT NOT NULL, account TEXT NOT NULL, unit TEXT NOT NULL, amount INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS demo_balance (account TEXT NOT NULL, unit TEXT NOT NULL, opening INTEGER NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (account, unit)) STRICT;
CREATE TABLE IF NOT EXISTS demo_report (slot TEXT NOT NULL, run INTEGER NOT NULL, missed INTEGER NOT NULL, lines INTEGER NOT NULL, shipped INTEGER NOT NULL, rolled_back INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS demo_kill (kill INTEGER NOT NULL, moment TEXT NOT NULL, pid INTEGER NOT NULL, killed TEXT NOT NULL, back TEXT NOT NULL,
	streak_before INTEGER NOT NULL, streak_after INTEGER NOT NULL, window_before TEXT, window_after TEXT, status_before TEXT NOT NULL, status_after TEXT NOT NULL) STRICT;
INSERT INTO demo_balance (account, unit, opening, amount) VALUES ('shelf', 'lamps', 1000, 1000), ('counter', 'lamps', 0, 0), ('shop', 'cents', 0, 0) ON CONFLICT DO NOTHING`)
	for _, c := range customers {
		_, opened := tx.Exec("INSERT INTO demo_balance (account, unit, opening, amount) VALUES (?, 'cents', ?2, ?2) ON CONFLICT DO NOTHING", c.name, c.cents)
		err = errors.Join(err, opened)
	}
	return err
}
