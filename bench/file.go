package main

import (
	"database/sql"
	"fmt"
)

// peerDSN sets what all subjects have in common, and nothing else.
const peerDSN = "file:%s?_busy_timeout=5000&_journal_mode=WAL&_synchronous=FULL&_txlock=immediate"

// openFile opens a peer's file, with so many connections, and makes sure of the
// durability.
func openFile(path string, conns int) (*sql.DB, error) {
	db, err := sql.Open("sqlite", fmt.Sprintf(peerDSN, path))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	var mode string
	var sync int
	if err = db.QueryRow("PRAGMA journal_mode").Scan(&mode); err == nil {
		err = db.QueryRow("PRAGMA synchronous").Scan(&sync)
	}
	if err == nil && (mode != "wal" || sync != 2) {
		err = fmt.Errorf("journal_mode is %s, synchronous %d", mode, sync)
	}
	return db, err
}
