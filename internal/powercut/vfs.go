package powercut

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// A Hook is called with every call of SQLite's that reads or changes files. It makes the
// call by do or not, and returns SQLite's result code, 0 for success. op is good
// during the call only, its Data too.
type Hook func(op *Op, do func() int32) int32

// An Op is one call of SQLite's.
type Op struct {
	Kind Kind
	Name string // of the file, without the folder
	At   int64  // where it reads or writes; the size that a truncation leaves
	Data []byte // what is written
	Dir  bool   // the folder is synced, too
	// Claim is what an Acknowledge claims to be durable.
	Claim any
}

// A Kind says what an Op does.
type Kind string

// The closed set of kinds. Only a Recorder has the last two.
const (
	Create      Kind = "create" // a file is opened that was not there
	Read        Kind = "read"   // not recorded
	Write       Kind = "write"
	Truncate    Kind = "truncate"
	Sync        Kind = "sync"
	Delete      Kind = "delete"
	Forget      Kind = "forget" // a sync failed, and what was to be synced is gone
	Acknowledge Kind = "acknowledge"
)

// A disk is SQLite's own VFS with a hook before it.
type disk struct {
	dir  string
	hook Hook
	own  *sqlite3.Tsqlite3_vfs

	mu      sync.Mutex // guards methods
	methods map[uintptr]uintptr
}

// A file is one that SQLite has open in the folder.
type file struct {
	disk *disk
	name string
	own  *sqlite3.Tsqlite3_io_methods
	// unsynced says that the next sync is one of the folder, too: SQLite does so
	// once for each journal and WAL that it opens.
	unsynced bool
}

// SQLite calls back with addresses only, so these are found by them.
var (
	disks sync.Map // sqlite3_vfs → *disk
	files sync.Map // sqlite3_file → *file
)

type (
	openFunc     = func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32
	deleteFunc   = func(*libc.TLS, uintptr, uintptr, int32) int32
	closeFunc    = func(*libc.TLS, uintptr) int32
	writeFunc    = func(*libc.TLS, uintptr, uintptr, int32, int64) int32
	truncateFunc = func(*libc.TLS, uintptr, int64) int32
	syncFunc     = func(*libc.TLS, uintptr, int32) int32
)

// at returns what an address of SQLite's points to.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// function and address turn a function of SQLite's into one of Go's, and back.
func function[T any](p uintptr) T { return *(*T)(unsafe.Pointer(&p)) }
func address[T any](f T) uintptr  { return *(*uintptr)(unsafe.Pointer(&f)) }

// Install puts the hook before SQLite's own VFS, for the files that are opened
// in the folder from now on by anybody in this process, until remove is called.
// There can be one at a time.
func Install(dir string, hook Hook) (remove func(), err error) {
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	tls := libc.NewTLS()
	own := sqlite3.Xsqlite3_vfs_find(tls, 0)
	if _, ours := disks.Load(own); ours {
		tls.Close()
		return nil, errors.New("powercut: another one is installed")
	}
	name, err := libc.CString("powercut")
	if err != nil {
		return nil, err
	}
	d := &disk{dir: dir + string(filepath.Separator), hook: hook, own: at[sqlite3.Tsqlite3_vfs](own), methods: map[uintptr]uintptr{}}
	p := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{}))) // stays: SQLite may still use it
	vfs := at[sqlite3.Tsqlite3_vfs](p)
	*vfs = *d.own
	vfs.FzName, vfs.FpNext = name, 0
	vfs.FxOpen, vfs.FxDelete = address(xOpen), address(xDelete)
	disks.Store(p, d)
	if rc := sqlite3.Xsqlite3_vfs_register(tls, p, 1); rc != 0 {
		return nil, fmt.Errorf("powercut: registering the VFS: code %d", rc)
	}
	return func() {
		sqlite3.Xsqlite3_vfs_unregister(tls, p)
		sqlite3.Xsqlite3_vfs_register(tls, own, 1)
		tls.Close()
	}, nil
}

func diskOf(vfs uintptr) *disk {
	d, _ := disks.Load(vfs)
	return d.(*disk)
}

func fileOf(p uintptr) *file {
	f, _ := files.Load(p)
	return f.(*file)
}

// inside returns a file's name in the folder, "" if it is elsewhere.
func (d *disk) inside(path uintptr) string {
	if path == 0 { // a temporary file
		return ""
	}
	name, ok := strings.CutPrefix(libc.GoString(path), d.dir)
	if !ok {
		return ""
	}
	return name
}

// xOpen gives files in the folder our methods.
func xOpen(tls *libc.TLS, vfs, path, p uintptr, flags int32, out uintptr) (rc int32) {
	d := diskOf(vfs)
	open := func() int32 { return function[openFunc](d.own.FxOpen)(tls, vfs, path, p, flags, out) }
	name := d.inside(path)
	if name == "" {
		return open()
	}
	if _, err := os.Stat(d.dir + name); errors.Is(err, os.ErrNotExist) && flags&sqlite3.SQLITE_OPEN_CREATE != 0 {
		rc = d.hook(&Op{Kind: Create, Name: name}, open)
	} else {
		rc = open()
	}
	if rc == 0 {
		d.adopt(p, name, flags)
	}
	return rc
}

// adopt puts our methods in the place of the file's own.
func (d *disk) adopt(p uintptr, name string, flags int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	open := at[sqlite3.Tsqlite3_file](p)
	own := open.FpMethods
	if d.methods[own] == 0 {
		m := libc.Xmalloc(nil, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
		methods := at[sqlite3.Tsqlite3_io_methods](m)
		*methods = *at[sqlite3.Tsqlite3_io_methods](own)
		methods.FxClose = address(xClose)
		methods.FxRead, methods.FxWrite = address(xRead), address(xWrite)
		methods.FxTruncate, methods.FxSync = address(xTruncate), address(xSync)
		d.methods[own] = m
	}
	open.FpMethods = d.methods[own]
	journal := flags&(sqlite3.SQLITE_OPEN_MAIN_JOURNAL|sqlite3.SQLITE_OPEN_SUPER_JOURNAL|sqlite3.SQLITE_OPEN_WAL) != 0
	files.Store(p, &file{
		disk: d, name: name, own: at[sqlite3.Tsqlite3_io_methods](own),
		unsynced: journal && flags&sqlite3.SQLITE_OPEN_CREATE != 0,
	})
}

func xDelete(tls *libc.TLS, vfs, path uintptr, dirSync int32) int32 {
	d := diskOf(vfs)
	remove := func() int32 { return function[deleteFunc](d.own.FxDelete)(tls, vfs, path, dirSync) }
	name := d.inside(path)
	if name == "" {
		return remove()
	}
	return d.hook(&Op{Kind: Delete, Name: name, Dir: dirSync != 0}, remove)
}

func xClose(tls *libc.TLS, p uintptr) int32 {
	f := fileOf(p)
	files.Delete(p)
	return function[closeFunc](f.own.FxClose)(tls, p)
}

func xRead(tls *libc.TLS, p, buf uintptr, n int32, offset int64) int32 {
	f := fileOf(p)
	return f.disk.hook(&Op{Kind: Read, Name: f.name, At: offset},
		func() int32 { return function[writeFunc](f.own.FxRead)(tls, p, buf, n, offset) })
}

func xWrite(tls *libc.TLS, p, buf uintptr, n int32, offset int64) int32 {
	f := fileOf(p)
	return f.disk.hook(&Op{Kind: Write, Name: f.name, At: offset, Data: unsafe.Slice(at[byte](buf), n)},
		func() int32 { return function[writeFunc](f.own.FxWrite)(tls, p, buf, n, offset) })
}

func xTruncate(tls *libc.TLS, p uintptr, size int64) int32 {
	f := fileOf(p)
	return f.disk.hook(&Op{Kind: Truncate, Name: f.name, At: size},
		func() int32 { return function[truncateFunc](f.own.FxTruncate)(tls, p, size) })
}

func xSync(tls *libc.TLS, p uintptr, flags int32) int32 {
	f := fileOf(p)
	rc := f.disk.hook(&Op{Kind: Sync, Name: f.name, Dir: f.unsynced},
		func() int32 { return function[syncFunc](f.own.FxSync)(tls, p, flags) })
	f.unsynced = f.unsynced && rc != 0
	return rc
}
