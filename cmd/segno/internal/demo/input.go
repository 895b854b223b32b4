package demo

import (
	"bufio"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/segnodev/segno/testdata"
)

// source is what is ingested: a file, or what this binary carries.
func source(path string) (io.ReadSeekCloser, error) {
	if path == "" {
		return embedded{strings.NewReader(testdata.Tzdata)}, nil
	}
	return os.Open(path)
}

type embedded struct{ *strings.Reader }

func (embedded) Close() error { return nil }

// sourceName is what to call it.
func sourceName(path string) string {
	if path == "" {
		return "tzdata.zi"
	}
	return filepath.Base(path)
}

// A fact is what is kept of a line.
type fact struct {
	Line  int
	Kind  string
	Words int
	Bytes int
	Sum   uint32 // CRC-32 of the text, to recognise it by
}

// factOf reads one line, given without its end.
func factOf(line int, text string) fact {
	return fact{Line: line, Kind: kindOf(text), Words: len(strings.Fields(text)), Bytes: len(text), Sum: crc32.ChecksumIEEE([]byte(text))}
}

// kindOf tells the lines of a time-zone table apart; those of other files are
// comments, blank or other.
func kindOf(text string) string {
	for prefix, kind := range map[string]string{"R ": "rule", "Z ": "zone", "L ": "link", "#": "comment"} {
		if strings.HasPrefix(text, prefix) {
			return kind
		}
	}
	if strings.TrimSpace(text) == "" {
		return "blank"
	}
	return "other"
}

// readFacts reads up to n lines from offset on, of which the first has the
// given number, and returns the offset behind them.
func readFacts(path string, offset int64, line, n int) (facts []fact, behind int64, err error) {
	f, err := source(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, 0, err
	}
	r := bufio.NewReader(f)
	for len(facts) < n {
		text, err := r.ReadString('\n')
		if text != "" {
			facts = append(facts, factOf(line+len(facts), strings.TrimSuffix(text, "\n")))
			offset += int64(len(text))
		}
		if errors.Is(err, io.EOF) {
			return facts, offset, nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
	return facts, offset, nil
}

// readAll reads the whole input at once, as the proof compares with it.
func readAll(path string) ([]fact, error) {
	const all = int(^uint(0) >> 1)
	facts, _, err := readFacts(path, 0, 1, all)
	return facts, err
}
