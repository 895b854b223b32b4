//go:build unix

package segno_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/segnodev/segno"
)

// faultPage writes rubbish over the first page of a table of a file that nobody
// has open, and returns how to take it back.
func faultPage(t *testing.T, path, table string) (repair func()) {
	t.Helper()
	const size = 4096
	root := killValue[int64](t, path, "SELECT rootpage FROM sqlite_master WHERE name = ?", table)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	good := make([]byte, size)
	_, err = f.ReadAt(good, (root-1)*size)
	write := func(b []byte) {
		_, errWrite := f.WriteAt(b, (root-1)*size)
		if err = errors.Join(err, errWrite); err != nil {
			t.Fatal(err)
		}
	}
	write(bytes.Repeat([]byte{0xa5}, size))
	return func() {
		write(good)
		f.Close()
	}
}

// A damaged page is found when it is needed. Then the scheduler ends, says so,
// and has kept what was promised: all goes on when the page is repaired.
func TestACorruptPageIsTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		path := filepath.Join(t.TempDir(), "a.db")
		var after atomic.Bool
		w := faultWorkflow(segno.Step[faultState, faultData]{
			Do: func(ctx context.Context, _ *faultData) (faultState, error) {
				if !after.Load() {
					<-ctx.Done()
					return "", ctx.Err()
				}
				return "second", nil
			},
		})
		faultStop(t, faultMustStart(t, path, segno.Options{}, w), path)
		repair := faultPage(t, path, "_segno_signal")
		r := faultMustStart(t, path, segno.Options{}, w)
		if err := faultWrite(ctx, r, "acknowledged"); err != nil {
			t.Fatal(err)
		}
		id := faultTrigger(t, r)
		synctest.Wait()
		err := r.Signal(ctx, segno.Target{Run: id}, segno.Message{Name: "go"})
		faultSays(t, "what needs the page", err, segno.ErrStoreFailed, "malformed")
		faultSays(t, "Wait", r.Wait(), segno.ErrStoreFailed, "malformed")
		faultSays(t, "a write after it", faultWrite(ctx, r, "late"), segno.ErrStoreFailed)
		repair()
		after.Store(true)
		r = faultMustStart(t, path, segno.Options{}, w)
		faultComplete(t, r, id)
		if got := faultRows(t, r.DB()); got != "acknowledged" {
			t.Errorf("rows: got = %q, want acknowledged", got)
		}
		faultStop(t, r, path)
	})
}

// A function inside a commit cannot wait for another commit. It is told so, and
// nobody else notices.
func TestAnOnCommitThatCallsBackIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.db")
		var r *segno.RunningScheduler
		var refused []string
		w := faultWorkflow(segno.Step[faultState, faultData]{
			Do: func(ctx context.Context, d *faultData) (faultState, error) {
				if d.Blob != "back" {
					return "second", nil
				}
				run := segno.InfoFrom(ctx).Run
				return "second", segno.OnCommit(ctx, func(segno.Tx) error {
					ctx := context.Background()
					_, errTrigger := r.Trigger(ctx, "f", segno.Trigger{})
					for call, err := range map[string]error{
						"Trigger": errTrigger, "Write": r.Write(ctx, func(segno.Tx) error { return nil }),
						"CancelRun": r.CancelRun(ctx, run), "PauseFlow": r.PauseFlow(ctx, "f", segno.Pause{}),
						"Signal": r.Signal(ctx, segno.Target{Run: run}, segno.Message{Name: "n"}),
					} {
						if !errors.Is(err, segno.ErrTx) {
							refused = append(refused, fmt.Sprintf("%s: got = %v, want ErrTx", call, err))
						}
					}
					if _, err := r.Run(ctx, run); err != nil { // reading is no matter
						refused = append(refused, fmt.Sprintf("Run: got = %v, want nil", err))
					}
					return errTrigger
				})
			},
		})
		r = faultMustStart(t, path, segno.Options{}, w)
		back, err := r.Trigger(context.Background(), "f", segno.Trigger{Input: faultData{Blob: "back"}})
		if err != nil {
			t.Fatal(err)
		}
		id := faultTrigger(t, r)
		info, err := r.WaitRun(context.Background(), back)
		if info.Status != segno.RunFailed || err == nil || !strings.Contains(err.Error(), "use its Tx") {
			t.Errorf("the run: got = %s (%v), want it to fail and to say what to use", info.Status, err)
		}
		for _, text := range refused {
			t.Error(text)
		}
		faultComplete(t, r, id)
		faultStop(t, r, path)
	})
}
