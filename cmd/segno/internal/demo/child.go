package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// child is a worker as the supervisor sees it.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	ready  chan struct{} // closed when it is at work
	exited chan struct{} // closed when it is gone
	err    error         // how it went, set before
}

// spawn starts this program again as a worker, and waits until it is at work.
func spawn(ctx context.Context, j job) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(exe, WorkerCommand), ready: make(chan struct{}), exited: make(chan struct{})}
	log, err := os.OpenFile(workerLog(j.DB), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	c.cmd.Stderr = log
	stdout, err := c.pipes()
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	go c.watch(stdout)
	if err := json.NewEncoder(c.stdin).Encode(j); err != nil {
		return nil, errors.Join(err, c.end())
	}
	if err := c.await(ctx, j); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *child) pipes() (stdout io.Reader, err error) {
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return c.cmd.StdoutPipe()
}

// watch sees when the worker is ready, and when it is gone.
func (c *child) watch(stdout io.Reader) {
	for scan := bufio.NewScanner(stdout); scan.Scan(); {
		if scan.Text() == ready {
			close(c.ready)
		}
	}
	c.err = c.cmd.Wait()
	close(c.exited)
}

// await returns when the worker is at work; after an error it is gone.
func (c *child) await(ctx context.Context, j job) error {
	select {
	case <-c.ready:
		return nil
	case <-c.exited:
		return fmt.Errorf("the worker did not start (%w); its log is %s", errorOr(c.err, io.EOF), workerLog(j.DB))
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), c.end())
	}
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// say tells the worker something.
func (c *child) say(word string) error {
	_, err := fmt.Fprintln(c.stdin, word)
	return err
}

// kill ends the worker with SIGKILL, which no program can prepare for.
func (c *child) kill() error {
	err := c.cmd.Process.Kill()
	<-c.exited
	return err
}

// stop lets the worker stop by itself.
func (c *child) stop() error {
	if err := c.say(stop); err != nil {
		return err
	}
	select {
	case <-c.exited:
		return c.err
	case <-time.After(10 * time.Second):
		return errors.Join(errors.New("the worker does not stop"), c.kill())
	}
}

// end makes sure that the worker is gone, whatever went wrong.
func (c *child) end() error {
	select {
	case <-c.exited:
		return nil
	default:
	}
	_ = c.stdin.Close() // the worker stops when its supervisor is gone
	select {
	case <-c.exited:
		return nil
	case <-time.After(3 * time.Second):
		return c.kill()
	}
}

// errorOr returns the first error if there is one, else the second.
func errorOr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}
