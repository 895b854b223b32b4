package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	_ "modernc.org/sqlite" // the driver

	"github.com/segnodev/segno/migrations"
)

const (
	applicationID = 0x7365676e // "segn"
	schemaTable   = "_segno_schema"
	checkpointAt  = 4000 // pages of WAL
)

// dsn returns a data source name of the file with the given settings. The
// shorthand keys are checked by the driver, unlike a mistyped _pragma.
func dsn(path string, settings url.Values) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath(), RawQuery: settings.Encode()}
	return u.String()
}

func writerDSN(path string, fresh bool) string {
	v := url.Values{
		"_busy_timeout": {"5000"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"},
		"_foreign_keys": {"on"}, "_txlock": {"immediate"}, "_dqs": {"0"},
		"_pragma": {fmt.Sprintf("wal_autocheckpoint(%d)", checkpointAt), "cache_size(-65536)", "temp_store(MEMORY)"},
	}
	if fresh {
		v.Set("_auto_vacuum", "INCREMENTAL")
	}
	return dsn(path, v)
}

// readerDSN gives readers a small cache: whatever it holds is of no use any more
// once the writer has committed, and the system's own is as near. In memory a
// page takes twice its size.
func readerDSN(path string) string {
	return dsn(path, url.Values{"mode": {"ro"}, "_busy_timeout": {"5000"}, "_dqs": {"0"}, "_pragma": {"cache_size(-2048)"}})
}

// openReader opens a read-only pool of n connections.
func openReader(path string, n int) (*sqlx.DB, error) {
	db, err := sqlx.Open("sqlite", readerDSN(path))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// create makes an empty file that only its owner can read. An existing file
// stays as it is.
func create(path string) (fresh bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		st, err := os.Stat(path)
		if err == nil && st.IsDir() {
			err = fmt.Errorf("%w: %s is a directory; give the path of a file", ErrForeign, path)
		}
		return err == nil && st.Size() == 0, err
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

// identity is what a file says about itself before it is touched.
type identity struct {
	app, schema int64
	ours, alien bool
	empty       bool // no tables, nothing
}

// identify reads a file's identity without changing it. Only a rollback journal
// that a killed process has left is played back, as every reader would that may:
// until then nobody can read the file.
func identify(ctx context.Context, path string) (id identity, err error) {
	db, err := openReader(path, 1)
	if err != nil {
		return id, err
	}
	defer func() { _ = db.Close() }()
	id, err = identityOf(ctx, db)
	if !halfDone(err) {
		return id, err
	}
	rw, err := sqlx.Open("sqlite", dsn(path, url.Values{"mode": {"rw"}, "_busy_timeout": {"5000"}, "_dqs": {"0"}}))
	if err != nil {
		return id, err
	}
	defer func() { _ = rw.Close() }()
	return identityOf(ctx, rw)
}

// identityOf reads a file's identity through an open pool.
func identityOf(ctx context.Context, db *sqlx.DB) (id identity, err error) {
	if err = db.GetContext(ctx, &id.app, "PRAGMA application_id"); err != nil {
		return id, err
	}
	const count = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name "
	var ours, tables int
	if err = db.GetContext(ctx, &ours, count+"= ?", schemaTable); err != nil {
		return id, err
	}
	if err = db.GetContext(ctx, &tables, count+`LIKE '\_segno\_%' ESCAPE '\'`); err != nil {
		return id, err
	}
	id.ours, id.alien = ours > 0, tables > 0 && ours == 0
	if err = db.GetContext(ctx, &id.empty, "SELECT count(*) = 0 FROM sqlite_master"); err != nil {
		return id, err
	}
	if id.ours {
		err = db.GetContext(ctx, &id.schema, "SELECT coalesce(max(version_id), 0) FROM "+schemaTable)
	}
	return id, err
}

// vet refuses a file that is not ours to write.
func vet(path string, id identity, latest int64) error {
	switch {
	case id.app != 0 && id.app != applicationID:
		return fmt.Errorf("%w: %s belongs to another application (application_id %#x); give another path", ErrForeign, path, id.app)
	case id.alien:
		return fmt.Errorf("%w: %s has _segno_ tables that segno did not make; give another path", ErrForeign, path)
	case id.schema > latest:
		return fmt.Errorf("%w: %s has schema %d, this program knows %d; run the newer program", ErrNewer, path, id.schema, latest)
	}
	return nil
}

// migrate brings the schema up to date, under the lock that the caller holds.
func migrate(ctx context.Context, db *sql.DB) error {
	p, err := provider(db)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

func provider(db *sql.DB) (*goose.Provider, error) {
	versions, err := database.NewStore(database.DialectSQLite3, schemaTable)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider("", db, migrations.FS, goose.WithStore(versions), goose.WithDisableGlobalRegistry(true))
}

// latestSchema is the newest schema this program knows.
func latestSchema() (latest int64, err error) {
	files, err := migrations.FS.ReadDir(".")
	for _, f := range files {
		n, err := strconv.ParseInt(f.Name()[:4], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("migration %s: %w", f.Name(), err)
		}
		latest = max(latest, n)
	}
	return latest, err
}

// settings checks that the connection has the durability that was asked for: a
// setting SQLite did not understand is no error to it.
func settings(ctx context.Context, db *sql.DB) error {
	for _, want := range []struct{ name, value string }{
		{"journal_mode", "wal"}, {"synchronous", "2"}, {"foreign_keys", "1"},
		{"busy_timeout", "5000"}, {"wal_autocheckpoint", strconv.Itoa(checkpointAt)},
	} {
		var got string
		if err := db.QueryRowContext(ctx, "PRAGMA "+want.name).Scan(&got); err != nil {
			return err
		}
		if got != want.value {
			return fmt.Errorf("%w: %s is %s, not %s; the SQLite driver did not take the setting: build with the version that segno's go.mod names",
				ErrStoreFailed, want.name, got, want.value)
		}
	}
	return nil
}

// lockedBy tells who holds the lock, as far as the file says.
func lockedBy(path string) error {
	var o struct {
		PID   int64
		Host  string
		Since string
	}
	db, err := openReader(path, 1)
	if err == nil {
		defer func() { _ = db.Close() }()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err = db.GetContext(ctx, &o, "SELECT pid, host, since FROM segno_owner")
	}
	if err != nil {
		return fmt.Errorf("%w: %s is open in another process; stop it, or set Options.Standby to wait for it", ErrLocked, path)
	}
	return fmt.Errorf("%w: %s is open in process %d on %s since %s; stop it, or set Options.Standby to wait for it",
		ErrLocked, path, o.PID, o.Host, o.Since)
}
