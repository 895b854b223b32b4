package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNewFileHasItsSettings(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "a.db"))
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		st, err := os.Stat(s.path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := st.Mode().Perm(), fs.FileMode(0o600); got != want {
			t.Errorf("mode of %s: got = %v, want %v", filepath.Base(s.path)+suffix, got, want)
		}
	}
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "application_id": "1936025454", "auto_vacuum": "2", // of the file
		"synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "wal_autocheckpoint": "0", // of the writer, which makes them itself
	} {
		if got := one(t, s.w.conn, "PRAGMA "+pragma); got != want {
			t.Errorf("%s: got = %s, want %s", pragma, got, want)
		}
	}
	if s.Adopted {
		t.Error("Adopted: got = true, want false for a file of our own")
	}
	for _, db := range []*sql.DB{s.DB(), s.reader.DB} {
		if _, err := db.Exec("CREATE TABLE mine (x)"); primary(err) != 8 {
			t.Errorf("writing through a reader: got = %v, want SQLite's READONLY", err)
		}
	}
}

func TestSettingThatDidNotTakeRefuses(t *testing.T) {
	for setting, value := range map[string]string{
		"_journal_mode": "DELETE", "_synchronous": "NORMAL", "_foreign_keys": "off", "_busy_timeout": "1", "_pragma": "wal_autocheckpoint(1)",
	} {
		u, err := url.Parse(writerDSN(filepath.Join(t.TempDir(), "a.db"), true))
		if err != nil {
			t.Fatal(err)
		}
		v := u.Query()
		v.Set(setting, value)
		u.RawQuery = v.Encode()
		db, err := sql.Open("sqlite", u.String())
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		name, _, _ := strings.Cut(strings.TrimPrefix(setting, "_"), "(")
		if name == "pragma" {
			name = "wal_autocheckpoint"
		}
		says(t, settings(ctx, db), ErrStoreFailed, name, "not ", "driver")
	}
}

// adoptee makes an SQLite file of somebody else's, with 0644 and no auto_vacuum.
func adoptee(t *testing.T, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "theirs.db")
	do(t, path, append([]string{
		"CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT)", "INSERT INTO customer VALUES (1, 'Ada'), (2, 'Grace')",
	}, statements...)...)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExistingFileIsAdoptedAsItIs(t *testing.T) {
	path := adoptee(t, "PRAGMA user_version = 7", "CREATE TABLE runs (segno_ TEXT)")
	for _, round := range []string{"first", "second"} {
		s := open(t, path)
		if !s.Adopted {
			t.Errorf("%s time: Adopted: got = false, want true", round)
		}
		addRun(t, s, "f")
		shut(t, s)
		for query, want := range map[string]string{
			"PRAGMA application_id": "0", "PRAGMA auto_vacuum": "0", "PRAGMA user_version": "7",
			"SELECT group_concat(name) FROM customer": "Ada,Grace",
		} {
			if got := ask(t, path, query); got != want {
				t.Errorf("%s time: %s: got = %s, want %s", round, query, got, want)
			}
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := st.Mode().Perm(), fs.FileMode(0o644); got != want {
			t.Errorf("%s time: mode: got = %v, want %v", round, got, want)
		}
	}
	if got := ask(t, path, "SELECT count(*) FROM segno_runs"); got != "2" {
		t.Errorf("runs: got = %s, want 2", got)
	}
}

// What a start that was killed early leaves behind is no obstacle to the next.
func TestUnfinishedFileIsTakenAsNew(t *testing.T) {
	for name, make := range map[string]func(path string){
		"empty":      func(path string) { _ = os.WriteFile(path, nil, 0o600) },
		"no schema":  func(path string) { do(t, path, "PRAGMA auto_vacuum = 2", "PRAGMA journal_mode = WAL", "VACUUM") },
		"no version": func(path string) { do(t, path, "PRAGMA application_id = 1936025454", "PRAGMA journal_mode = WAL") },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			make(path)
			s := open(t, path)
			addRun(t, s, "f")
		})
	}
}

func TestErrForeign(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(path string) error
		says []string
	}{
		{"application id", func(path string) error {
			do(t, path, "PRAGMA application_id = 4242", "CREATE TABLE x (y)")
			return nil
		}, []string{"0x1092", "another path"}},
		{"tables of our name", func(path string) error {
			do(t, path, "CREATE TABLE _segno_run (x)")
			return nil
		}, []string{"_segno_ tables", "another path"}},
		{"garbage", func(path string) error {
			return os.WriteFile(path, bytes.Repeat([]byte("not a database\n"), 1000), 0o600)
		}, []string{"not an SQLite file", "another path"}},
		{"a line of text", func(path string) error {
			return os.WriteFile(path, []byte("buy milk\n"), 0o600)
		}, []string{"not an SQLite file", "another path"}},
		{"directory", func(path string) error {
			return os.Mkdir(path, 0o700)
		}, []string{"directory", "path of a file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			if err := tt.make(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(path)
			for range 2 { // the lock is given back: the second answer is the same
				_, err := tryOpen(path)
				says(t, err, ErrForeign, append(tt.says, path)...)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(after, before) {
				t.Error("the file was changed, want it left alone")
			}
			for _, suffix := range []string{"-wal", "-shm"} {
				if _, err := os.Stat(path + suffix); err == nil {
					t.Errorf("%s was left behind", suffix)
				}
			}
		})
	}
}

func TestErrNewer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	shut(t, open(t, path))
	do(t, path, "INSERT INTO _segno_schema (version_id, is_applied) VALUES (9001, 1)")
	epoch := ask(t, path, "SELECT epoch FROM segno_owner")
	_, err := tryOpen(path)
	says(t, err, ErrNewer, path, "9001", "newer program")
	if got := ask(t, path, "SELECT epoch FROM segno_owner"); got != epoch {
		t.Errorf("epoch after the refusal: got = %s, want %s: nothing is written to a newer file", got, epoch)
	}
}

func TestErrCorrupt(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"truncated":     func(b []byte) []byte { return b[:len(b)/2] },
		"garbage pages": func(b []byte) []byte { return append(b[:4096:4096], bytes.Repeat([]byte{0xa5}, len(b)-4096)...) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			s, err := tryOpen(path)
			if err != nil {
				t.Fatal(err)
			}
			for range 50 {
				addRun(t, s, "f")
			}
			shut(t, s)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = tryOpen(path)
			says(t, err, ErrCorrupt, path, "restore a backup", ".recover")
		})
	}
}

func TestErrReadOnly(t *testing.T) {
	t.Run("folder", func(t *testing.T) {
		dir := t.TempDir()
		readOnly(t, dir)
		_, err := tryOpen(filepath.Join(dir, "a.db"))
		says(t, err, ErrReadOnly, dir, "make the folder writable")
	})
	t.Run("folder of an existing file", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.db")
		shut(t, open(t, path))
		readOnly(t, dir)
		_, err := tryOpen(path)
		says(t, err, ErrReadOnly, path, "writable")
	})
	t.Run("file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.db")
		s, err := tryOpen(path)
		if err != nil {
			t.Fatal(err)
		}
		shut(t, s)
		readOnly(t, path)
		_, err = tryOpen(path)
		says(t, err, ErrReadOnly, path, "writable")
	})
	t.Run("file that is to be adopted", func(t *testing.T) {
		path := adoptee(t)
		readOnly(t, path)
		_, err := tryOpen(path)
		says(t, err, ErrReadOnly, path, "writable")
	})
}

func TestMissingFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "such", "folder", "a.db")
	_, err := tryOpen(path)
	says(t, err, fs.ErrNotExist, path, "create the folder")
}

// Two names of one file are one file.
func TestSymlinksLeadToTheSameLock(t *testing.T) {
	for _, tt := range []struct {
		name string
		link func(real, link string) error
		via  string
	}{
		{"of the file", os.Symlink, ""},
		{"of a file yet to be made, relative", func(real, link string) error {
			rel, err := filepath.Rel(filepath.Dir(link), real)
			return errors.Join(err, os.Symlink(rel, link))
		}, ""},
		{"of the folder", func(real, link string) error { return os.Symlink(filepath.Dir(real), link) }, "a.db"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			real := filepath.Join(t.TempDir(), "a.db")
			link := filepath.Join(t.TempDir(), "link")
			if err := tt.link(real, link); err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(link, tt.via)
			s := open(t, name)
			if got, err := filepath.EvalSymlinks(s.Path()); err != nil || got != s.Path() {
				t.Errorf("Path: got = %s (%v), want it free of links", s.Path(), err)
			}
			_, err := tryOpen(real)
			says(t, err, ErrLocked, real)
			shut(t, s)
			open(t, real)
			_, err = tryOpen(name)
			says(t, err, ErrLocked, real)
			if tt.via == "" {
				if _, err := os.Stat(link + ".lock"); err == nil {
					t.Error("a lock lies beside the link, want it beside the file only")
				}
			}
		})
	}
	t.Run("in a circle", func(t *testing.T) {
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		if err := errors.Join(os.Symlink(a, b), os.Symlink(b, a)); err != nil {
			t.Fatal(err)
		}
		if _, err := tryOpen(a); err == nil || !strings.Contains(err.Error(), a) {
			t.Errorf("got = %v, want an error that names %s", err, a)
		}
	})
}

func TestPathMayHaveAnyCharacters(t *testing.T) {
	for _, name := range []string{"a b.db", "100%.db", "what?.db", "a#b&c=d.db", "%41.db", "käse;.db", "file:x", ":memory:", "a'b\".db"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, filepath.Join(dir, name))
			must(t, s, "CREATE TABLE t (x)")
			if got := one(t, s.DB(), "SELECT count(*) FROM sqlite_master WHERE name = 't'"); got != "1" {
				t.Errorf("read back: got = %s, want 1", got)
			}
			shut(t, s)
			files, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if f.Name() != name && f.Name() != name+".lock" {
					t.Errorf("made %q, want only %q and its lock", f.Name(), name)
				}
			}
		})
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Open(gone, Config{Path: path, SmallWAL: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("got = %v, want context.Canceled", err)
	}
	open(t, path) // and the lock was given back
}
