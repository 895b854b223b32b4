package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// A subject runs 3-step workflows, n in flight, until the context ends, and
// returns how many it has finished.
type subject struct {
	name string
	open func(path string, flight int) (run func(ctx context.Context) int64, closed func() error, err error)
}

var subjects = []subject{
	{"segno", openSegno},
	{"raw group", openRawGroup},
	{"raw single", openRawSingle},
}

// figures are what each round measured.
type figures map[string][]figure

// figure is one measurement.
type figure struct {
	rate float64 // steps per second
	cpu  float64 // microseconds of CPU per step, of the whole process
}

// compare runs the same 3-step workflow on every subject, on the same disk, with
// the same durability, interleaved in one run.
func compare(args []string) error {
	flags := flag.NewFlagSet("compare", flag.ExitOnError)
	rounds := flags.Int("rounds", 5, "rounds; the median is reported")
	length := flags.Duration("for", 1500*time.Millisecond, "length of one measurement")
	warmup := flags.Duration("warmup", 300*time.Millisecond, "not counted, before each")
	flights := flags.String("flight", "1,16,128,1024", "workflows in flight")
	dir := flags.String("dir", "", "where the databases go; a temporary folder by default")
	profile := flags.String("cpuprofile", "", "write a CPU profile of the segno measurements")
	_ = flags.Parse(args) // exits
	return measureAll(*rounds, *length, *warmup, *flights, *dir, *profile)
}

func measureAll(rounds int, length, warmup time.Duration, flights, dir, profile string) error {
	fmt.Printf("%s, %d CPUs, synchronous=FULL; steps/s, median of %d rounds of %v\n\n", runtime.Version(), runtime.NumCPU(), rounds, length)
	fmt.Printf("%9s  %10s %10s %10s  %12s %12s  %s\n", "in flight", "segno", "raw group", "raw single", "segno/group", "segno/single", "CPU µs per step")
	for _, text := range strings.Split(flights, ",") {
		flight, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		f := figures{}
		for range rounds {
			for _, s := range subjects {
				fig, err := measure(s, flight, length, warmup, dir, profile)
				if err != nil {
					return fmt.Errorf("%s at %d: %w", s.name, flight, err)
				}
				f[s.name] = append(f[s.name], fig)
			}
		}
		f.print(flight)
	}
	return nil
}

func (f figures) print(flight int) {
	rate := func(name string) float64 { return median(f[name], func(f figure) float64 { return f.rate }) }
	cpu := func(name string) float64 { return median(f[name], func(f figure) float64 { return f.cpu }) }
	s, g, r := rate("segno"), rate("raw group"), rate("raw single")
	fmt.Printf("%9d  %10.0f %10.0f %10.0f  %12.2f %12.2f  %.0f / %.0f / %.0f\n",
		flight, s, g, r, s/g, s/r, cpu("segno"), cpu("raw group"), cpu("raw single"))
}

// measure runs one subject once, on a fresh file.
func measure(s subject, flight int, length, warmup time.Duration, dir, profile string) (fig figure, err error) {
	tmp, err := os.MkdirTemp(dir, "segno-bench")
	if err != nil {
		return fig, err
	}
	defer os.RemoveAll(tmp)
	run, closed, err := s.open(filepath.Join(tmp, "bench.db"), flight)
	if err != nil {
		return fig, err
	}
	during(run, warmup)
	if profile != "" && s.name == "segno" {
		out, err := os.Create(fmt.Sprintf("%s.%d", profile, flight))
		if err != nil {
			return fig, err
		}
		defer out.Close()
		if err := pprof.StartCPUProfile(out); err != nil {
			return fig, err
		}
		defer pprof.StopCPUProfile()
	}
	start, busy := time.Now(), cpuTime()
	steps := 3 * float64(during(run, length))
	fig.rate = steps / time.Since(start).Seconds()
	fig.cpu = float64((cpuTime() - busy).Microseconds()) / steps
	return fig, closed()
}

func during(run func(context.Context) int64, d time.Duration) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return run(ctx)
}

func median(figs []figure, of func(figure) float64) float64 {
	v := make([]float64, len(figs))
	for i, f := range figs {
		v[i] = of(f)
	}
	return quantile(v, 0.5)
}
