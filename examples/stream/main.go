// Stream: a run follows a growing file, line by line, and copies it into a table.
// Its cursor is the offset behind the last line; it moves in the commit that
// writes the lines, so that none is lost or copied twice. The scheduler is
// stopped in the middle, with half a line in the file, and started again when the
// file has grown. To read on:
//
//	go run ./examples/stream -db stream.db
//	sqlite3 -box stream.db 'SELECT * FROM lines LIMIT 5' 'SELECT run, state, status FROM segno_runs'
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/segnodev/segno"
)

type State string

const Follow, Done State = "follow", "done"

type Log struct{ Path string }

// A line is an item of the source: its text, and the offset behind it.
type line struct {
	text string
	end  int64
}

// A window is twenty lines, or what has come within 50 ms.
var workflow = segno.Workflow[State, Log]{Initial: Follow, Steps: segno.Steps[State, Log]{
	Follow: {Do: segno.Stream(segno.Source[State, Log, int64, line, string]{
		Open:  open,
		Item:  func(_ context.Context, l line) (string, int64, error) { return l.text, l.end, nil },
		Flush: flush,
		Close: func(context.Context, *Log) (State, error) { return Done, nil },
		Count: 20,
		Every: 50 * time.Millisecond,
	})},
	Done: {Final: true},
}}

// open returns the lines behind the cursor, as they come, until one says END. It
// is called once, and again after a restart or a failed window.
func open(ctx context.Context, d Log, from *int64) (iter.Seq2[line, error], error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, err
	}
	at := *cmp.Or(from, new(int64))
	return func(yield func(line, error) bool) {
		defer func() { _ = f.Close() }()
		r, text := bufio.NewReader(io.NewSectionReader(f, at, 1<<40)), ""
		for ctx.Err() == nil {
			more, err := r.ReadString('\n')
			text += more
			if err != nil { // the rest of the line is not there yet
				time.Sleep(5 * time.Millisecond)
				continue
			}
			at += int64(len(text))
			if text == "END\n" || !yield(line{strings.TrimSpace(text), at}, nil) {
				return
			}
			text = ""
		}
	}, nil
}

// flush joins the window's lines to the commit that moves the cursor.
func flush(ctx context.Context, _ *Log, window []string) (next State, stop bool, err error) {
	return "", false, segno.OnCommit(ctx, func(tx segno.Tx) (err error) {
		for i := 0; i < len(window) && err == nil; i++ {
			_, err = tx.Exec("INSERT INTO lines (run, text) VALUES (?, ?)", segno.InfoFrom(ctx).Run, window[i])
		}
		return err
	})
}

// start comes up with the program's own table in the same file.
func start(ctx context.Context, db string) (*segno.RunningScheduler, error) {
	s := segno.New(db, segno.Options{Schema: func(tx segno.Tx) error {
		_, err := tx.Exec("CREATE TABLE IF NOT EXISTS lines (run INTEGER, text TEXT)")
		return err
	}})
	if err := s.Manual("follow", workflow); err != nil {
		return nil, err
	}
	return s.Start(ctx)
}

// lines returns some text for the file.
func lines(from, to int) (text string) {
	for i := from; i <= to; i++ {
		text += fmt.Sprintf("this is line %d\n", i)
	}
	return text
}

// copied waits until the run has n lines in the table, and tells how many differ.
func copied(ctx context.Context, running *segno.RunningScheduler, id segno.RunID, n int) (err error) {
	all, distinct := 0, 0
	for ; err == nil && all < n; time.Sleep(5 * time.Millisecond) {
		err = running.DB().QueryRowContext(ctx, "SELECT count(*), count(DISTINCT text) FROM lines WHERE run = ?", id).Scan(&all, &distinct)
	}
	fmt.Printf("the table has %d lines, %d of them different\n", all, distinct)
	return err
}

// grow appends to the file.
func grow(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	return err
}

// run lets the file grow while the program follows it, and while it is down.
func run(ctx context.Context, db string) error {
	if db == "" {
		dir, err := os.MkdirTemp("", "segno-stream-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		db = filepath.Join(dir, "stream.db")
	}
	running, err := start(ctx, db)
	if err != nil {
		return err
	}
	err = grow(db+".log", lines(1, 50)+"this is")
	id, failed := running.Trigger(ctx, "follow", segno.Trigger{Input: Log{Path: db + ".log"}})
	err = errors.Join(err, failed, copied(ctx, running, id, 50), running.Stop(ctx))
	fmt.Println("stopped, and the file grows")
	if err = errors.Join(err, grow(db+".log", " line 51\n"+lines(52, 80))); err != nil {
		return err
	}
	if running, err = start(ctx, db); err != nil {
		return err
	}
	err = grow(db+".log", lines(81, 100)+"END\n")
	info, failed := running.WaitRun(ctx, id)
	fmt.Println("started again, and the run is", info.Status)
	return errors.Join(err, failed, copied(ctx, running, id, 100), running.Stop(ctx))
}

func main() {
	db := flag.String("db", "", "the database `file`; none: a temporary one")
	flag.Parse()
	if err := run(context.Background(), *db); err != nil {
		log.Fatalln("stream:", err)
	}
}
