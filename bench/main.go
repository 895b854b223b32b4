// Command bench measures segno: against hand-written loops and other engines,
// and by itself at the sizes that hurt. Only ratios of one run mean anything on a
// machine that is not quiet.
//
//	go run . compare [-rounds 5] [-for 1500ms] [-flight 1,16,128,1024] [-peers=false] [-dir DIR]
//	go run . kill [-rounds 3] [-flight 200] [-dir DIR]
//	go run . due [-flows 100000] [-spread] [-for 3m] [-dir DIR]
//	go run . idle [-flows 100000] [-dir DIR]
//	go run . restart [-finished 1000000] [-parked 10000] [-interrupted 1000] [-dir DIR]
//	go run . parked [-runs 1000000] [-at-once 100000] [-dir DIR]
//	go run . long [-rows 10000000] [-rounds 3] [-for 2s] [-flight 128] [-dir DIR]
//	go run . reads [-runs 100000] [-flows 100] [-for 10s] [-flight 128] [-dir DIR]
//	go run . retention [-runs 200000] [-for 10s] [-flight 128] [-dir DIR]
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"
)

func main() {
	commands := map[string]func(args []string) error{
		"compare": compare, "kill": kill, "kill-child": killChild, "due": due, "idle": idle,
		"restart": restart, "restart-child": restartChild, "parked": parked, "parked-child": parkedChild,
		"long": long, "reads": reads, "retention": retention,
	}
	args := append(os.Args[1:], "compare")
	command := commands[args[0]]
	if command == nil {
		fmt.Fprintf(os.Stderr, "bench: no command %q; there are compare, kill, due, idle, restart, parked, long, reads and retention\n", args[0])
		os.Exit(2)
	}
	if err := command(os.Args[min(2, len(os.Args)):]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// quantile returns the value that a share q of the values is not above.
func quantile[T int64 | float64 | time.Duration](values []T, q float64) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// cpuTime is the CPU time that the process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// begin says where it runs, and returns the path of a new file in a folder that
// done removes, as it ends the profile, if one was asked for.
func begin(dir, profile string) (path string, done func(), err error) {
	fmt.Printf("%s, %d CPUs, synchronous=FULL\n", runtime.Version(), runtime.NumCPU())
	tmp, err := os.MkdirTemp(dir, "segno-bench")
	if err != nil {
		return "", nil, err
	}
	stop, err := profiling(profile)
	return filepath.Join(tmp, "bench.db"), func() {
		stop()
		_ = os.RemoveAll(tmp)
	}, err
}

// profiling writes a CPU profile to a file until it is stopped; "" writes none.
func profiling(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	out, err := os.Create(path)
	if err != nil {
		return func() {}, err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return func() {}, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = out.Close()
	}, nil
}
