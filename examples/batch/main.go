// Batch: a folder of pictures is made small, four at a time, and each picture's
// outcome is durable as soon as it is there: a crash repeats only those in work.
// One of the pictures is broken; after a second try it is reported, and no affair
// of the others. To read on:
//
//	go run ./examples/batch -db batch.db
//	sqlite3 -box batch.db 'SELECT visit, kind, state, data FROM segno_history'
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/segnodev/segno"
)

type State string

const Shrink, Done State = "shrink", "done"

type Album struct {
	Folder string
	Small  []Thumb  // what was made
	Broken []string // what could not be made, and why
}

// A Thumb is a small picture.
type Thumb struct{ Name, Sum string }

var workflow = segno.Workflow[State, Album]{Initial: Shrink, Steps: segno.Steps[State, Album]{
	Shrink: {Do: segno.Batch(load, shrink, finish, segno.BatchOptions{Concurrency: 4, Retry: segno.Fixed(2, 10*time.Millisecond)})},
	Done:   {Final: true},
}}

// load says what there is to do. It is asked once; the list is kept in the file.
func load(_ context.Context, a Album) ([]string, error) {
	return filepath.Glob(filepath.Join(a.Folder, "*.png"))
}

// shrink works on one picture. It may run twice, so it writes to a file of the
// same name each time.
func shrink(_ context.Context, path string) (t Thumb, err error) {
	t.Name = filepath.Base(path)
	f, err := os.Open(path)
	if err != nil {
		return t, err
	}
	defer func() { _ = f.Close() }()
	large, err := png.Decode(f)
	if err != nil {
		return t, fmt.Errorf("%s: %w", t.Name, err)
	}
	small, size := image.NewRGBA(image.Rect(0, 0, 32, 32)), large.Bounds().Size()
	for i := range 32 * 32 {
		x, y := i%32, i/32
		small.Set(x, y, large.At(x*size.X/32, y*size.Y/32))
	}
	t.Sum = fmt.Sprintf("%x", sha256.Sum256(small.Pix))[:12]
	return t, save(path+".small", small)
}

func save(path string, m image.Image) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(png.Encode(f, m), f.Close())
}

// finish sees what has become of every picture, in the order of the list.
func finish(_ context.Context, a *Album, all []segno.Settled[Thumb]) (State, error) {
	for _, one := range all {
		if one.Err != nil {
			a.Broken = append(a.Broken, one.Err.Error())
		} else {
			a.Small = append(a.Small, one.Value)
		}
	}
	return Done, nil
}

// paint makes twelve pictures, and breaks the seventh.
func paint(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	for n := 1; n <= 12; n++ {
		m := image.NewRGBA(image.Rect(0, 0, 320, 240))
		for i := range 320 * 240 {
			m.Set(i%320, i/320, color.RGBA{uint8(n * 20), uint8(i / 320), uint8(i % 320), 255})
		}
		if err := save(filepath.Join(folder, fmt.Sprintf("picture-%02d.png", n)), m); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(folder, "picture-07.png"), []byte("no picture"), 0o600)
}

func run(ctx context.Context, db string) error {
	if db == "" {
		dir, err := os.MkdirTemp("", "segno-batch-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		db = filepath.Join(dir, "batch.db")
	}
	if err := paint(db + ".album"); err != nil {
		return err
	}
	s := segno.New(db, segno.Options{})
	if err := s.Manual("albums", workflow); err != nil {
		return err
	}
	running, err := s.Start(ctx)
	if err != nil {
		return err
	}
	albums, err := segno.Bind(running, "albums", workflow)
	if err != nil {
		return errors.Join(err, running.Stop(ctx))
	}
	id, err := albums.Trigger(ctx, Album{Folder: db + ".album"})
	album, failed := albums.Wait(ctx, id)
	for _, t := range album.Data.Small {
		fmt.Println(t.Name, t.Sum)
	}
	fmt.Println("broken:", album.Data.Broken)
	return errors.Join(err, failed, running.Stop(ctx))
}

func main() {
	db := flag.String("db", "", "the database `file`; none: a temporary one")
	flag.Parse()
	if err := run(context.Background(), *db); err != nil {
		log.Fatalln("batch:", err)
	}
}
