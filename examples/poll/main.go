// Poll: a report is ordered from a web service, which takes its time; the run
// asks for it until it is ready, and comes back when Retry-After says. Between
// two polls it is a row in the file, without a goroutine: in the middle of the
// first wait the scheduler is stopped and started again, and the wait goes on.
// The service is part of the program. To read on:
//
//	go run ./examples/poll -db poll.db
//	sqlite3 -box poll.db 'SELECT visit, kind, state, data FROM segno_history'
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/segnodev/segno"
)

type State string

const Order, Fetch, Ready State = "order", "fetch", "ready"

type Report struct{ Job, Title string }

// workflow orders a report and polls for it: for a minute at most, restarts
// included, and whatever goes wrong, as long as it is not three times in a row.
func workflow(base string) segno.Workflow[State, Report] {
	order := func(ctx context.Context, r *Report) (State, error) {
		header, err := send(ctx, "POST", base+"/jobs")
		r.Job = header.Get("Location")
		return Fetch, err
	}
	fetch := func(ctx context.Context, r *Report) (State, time.Duration, error) {
		header, err := send(ctx, "GET", base+r.Job)
		r.Title = header.Get("Title")
		return Ready, retryAfter(header), err
	}
	return segno.Workflow[State, Report]{Initial: Order, Steps: segno.Steps[State, Report]{
		Order: {Do: order, Retry: segno.Exponential(3), Timeout: 5 * time.Second},
		Fetch: {Do: segno.Poll(fetch, segno.PollOptions{Tolerate: 2}), Timeout: time.Minute},
		Ready: {Final: true},
	}}
}

// send makes a request. An error comes with the time after which to try again.
func send(ctx context.Context, method, url string) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, segno.Permanent(err)
	}
	req.Header.Set("Idempotency-Key", segno.InfoFrom(ctx).Key) // the job is ordered once, even if this is repeated
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	fmt.Printf("%-4s %s: %s, Retry-After: %s\n", method, req.URL.Path, res.Status, cmp.Or(res.Header.Get("Retry-After"), "none"))
	if res.StatusCode >= 300 {
		return nil, segno.RetryAfter(errors.New(res.Status), cmp.Or(retryAfter(res.Header), time.Second))
	}
	return res.Header, nil
}

// retryAfter reads the header of that name, in seconds or as a date; 0: none.
func retryAfter(h http.Header) time.Duration {
	if at, err := http.ParseTime(h.Get("Retry-After")); err == nil {
		return time.Until(at)
	}
	seconds, _ := strconv.Atoi(h.Get("Retry-After"))
	return time.Duration(seconds) * time.Second
}

// service is the other side: it has one job, and one bad moment.
func service() http.HandlerFunc {
	answers := []int{http.StatusAccepted, http.StatusAccepted, http.StatusServiceUnavailable, http.StatusOK}
	return func(w http.ResponseWriter, r *http.Request) {
		status := answers[0]
		answers = answers[1:]
		switch {
		case r.Method == "POST":
			w.Header().Set("Location", "/jobs/1")
		case status == http.StatusOK:
			w.Header().Set("Title", "A year in numbers")
		default:
			w.Header().Set("Retry-After", "1")
		}
		w.WriteHeader(status)
	}
}

// start is what a program does whenever it comes up.
func start(ctx context.Context, db, base string) (*segno.RunningScheduler, error) {
	s := segno.New(db, segno.Options{})
	if err := s.Manual("reports", workflow(base)); err != nil {
		return nil, err
	}
	return s.Start(ctx)
}

func run(ctx context.Context, db string) error {
	if db == "" {
		dir, err := os.MkdirTemp("", "segno-poll-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		db = filepath.Join(dir, "poll.db")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	go func() { _ = http.Serve(listener, service()) }()
	base := "http://" + listener.Addr().String()
	running, err := start(ctx, db, base)
	if err != nil {
		return err
	}
	id, err := running.Trigger(ctx, "reports", segno.Trigger{})
	for info := (segno.RunInfo{}); err == nil && info.Status != segno.RunParked; time.Sleep(10 * time.Millisecond) {
		info, err = running.Run(ctx, id)
	}
	fmt.Println("the run is parked; stop, and start again")
	if err = errors.Join(err, running.Stop(ctx)); err != nil {
		return err
	}
	if running, err = start(ctx, db, base); err != nil {
		return err
	}
	report, err := running.WaitRun(ctx, id)
	fmt.Printf("the run is %s: %s\n", report.Status, report.Data)
	return errors.Join(err, running.Stop(ctx))
}

func main() {
	db := flag.String("db", "", "the database `file`; none: a temporary one")
	flag.Parse()
	if err := run(context.Background(), *db); err != nil {
		log.Fatalln("poll:", err)
	}
}
