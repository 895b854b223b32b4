package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"
)

// figure is one measurement. All but the rate are per step.
type figure struct {
	rate    float64 // steps per second
	cpu     float64 // microseconds of CPU, of the whole process
	commits float64 // transactions that wrote
	kept    float64 // bytes that stay in the file
	written float64 // bytes that were written, to the file and its log
}

// medians returns the median of each figure.
func medians(figs []figure) figure {
	of := func(get func(figure) float64) float64 {
		v := make([]float64, len(figs))
		for i, f := range figs {
			v[i] = get(f)
		}
		return quantile(v, 0.5)
	}
	return figure{
		rate:    of(func(f figure) float64 { return f.rate }),
		cpu:     of(func(f figure) float64 { return f.cpu }),
		commits: of(func(f figure) float64 { return f.commits }),
		kept:    of(func(f figure) float64 { return f.kept }),
		written: of(func(f figure) float64 { return f.written }),
	}
}

// one measures a subject once, on a fresh file.
func (c comparison) one(s subject, flight int) (fig figure, err error) {
	tmp, err := os.MkdirTemp(c.dir, "segno-bench")
	if err != nil {
		return fig, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	empty, err := emptySize(s, filepath.Join(tmp, "empty.db"))
	if err != nil {
		return fig, err
	}
	path := filepath.Join(tmp, "bench.db")
	workflows, err := c.on(path, &fig, s, flight)
	if err != nil {
		return fig, err
	}
	size, err := usedSize(path)
	fig.kept = float64(size-empty) / float64(3*workflows)
	return fig, err
}

// on measures a subject on a file, and returns how many workflows there were.
func (c comparison) on(path string, fig *figure, s subject, flight int) (int64, error) {
	e, err := s.open(path, setup{flight: flight})
	if err != nil {
		return 0, err
	}
	// It stays open until the engine is closed: to close it ends every lock that
	// the process has on the file.
	index, err := os.Open(path + "-shm")
	if err != nil {
		return 0, err
	}
	defer func() { _ = index.Close() }()
	before := during(e, flight, c.warmup)
	n, err := c.counted(fig, e, s.name, flight, index)
	if err != nil {
		return 0, err
	}
	return before + n, e.close()
}

// counted runs the workflows that count, and returns how many they were.
func (c comparison) counted(fig *figure, e *engine, name string, flight int, index *os.File) (int64, error) {
	if c.profile != "" && name == "segno" {
		out, err := os.Create(fmt.Sprintf("%s.%d", c.profile, flight))
		if err != nil {
			return 0, err
		}
		defer func() { _ = out.Close() }()
		if err := pprof.StartCPUProfile(out); err != nil {
			return 0, err
		}
		defer pprof.StopCPUProfile()
	}
	start, busy, commits, written := time.Now(), cpuTime(), commitCount(index), bytesWritten()
	n := during(e, flight, c.length)
	steps := float64(3 * n)
	fig.rate = steps / time.Since(start).Seconds()
	fig.cpu = float64((cpuTime() - busy).Microseconds()) / steps
	fig.commits = float64(commitCount(index)-commits) / steps
	fig.written = float64(bytesWritten()-written) / steps
	return n, nil
}

func during(e *engine, flight int, d time.Duration) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return e.run(ctx, flight)
}

// commitCount returns how many transactions have written to the file. SQLite
// counts them in the header of the index to its write-ahead log.
func commitCount(index *os.File) uint32 {
	var b [4]byte
	_, err := index.ReadAt(b[:], 8)
	check(err)
	return binary.NativeEndian.Uint32(b[:])
}

// bytesWritten returns what the process has handed to write calls, as Linux
// counts it; elsewhere 0. Its count of what goes to the disk would mislead: there a
// small write to a file that was once written in large pieces counts as a piece.
func bytesWritten() (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	if _, after, ok := bytes.Cut(text, []byte("\nwchar: ")); err == nil && ok {
		_, _ = fmt.Sscan(string(after), &n)
	}
	return n
}

// emptySize returns the size of a subject's file before its first workflow.
func emptySize(s subject, path string) (int64, error) {
	e, err := s.open(path, setup{flight: 1})
	if err != nil {
		return 0, err
	}
	if err := e.close(); err != nil {
		return 0, err
	}
	return usedSize(path)
}

// usedSize returns the bytes of a closed file that are in use. backlite may still
// be about to let go of it.
func usedSize(path string) (size int64, err error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_busy_timeout=5000")
	if err != nil {
		return 0, err
	}
	defer func() { _ = db.Close() }()
	const used = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
	err = db.QueryRow(used).Scan(&size)
	return size, err
}
