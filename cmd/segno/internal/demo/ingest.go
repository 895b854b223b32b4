package demo

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/segnodev/segno"
)

// State is a state of any of the demo's workflows.
type State string

// Ingest is the data of a run that counts the lines of the input.
type Ingest struct {
	Offset int64 `json:"offset"` // the cursor: what lies before it has been counted
	Lines  int   `json:"lines"`
	Chunk  int   `json:"chunk"` // lines per step
}

// States of the ingest.
const (
	Read     State = "read"
	Ingested State = "ingested"
)

// ingest is the workflow behind the flow "ingest": a loop of one state, each
// visit of which reads a chunk and moves the cursor.
func (w *worker) ingest() segno.Workflow[State, Ingest] {
	return segno.Workflow[State, Ingest]{
		Version: 1,
		Initial: Read,
		Steps: segno.Steps[State, Ingest]{
			Read:     {Do: w.read, Next: []State{Read, Ingested}},
			Ingested: {Final: true},
		},
	}
}

// read counts one chunk. Facts, counters and cursor are one commit with the
// transition: after a kill the chunk is read again, but never counted again.
func (w *worker) read(ctx context.Context, d *Ingest) (State, error) {
	facts, behind, err := readFacts(w.job.Input, d.Offset, d.Lines+1, d.Chunk)
	if err != nil {
		return "", err
	}
	if len(facts) == 0 {
		return Ingested, nil
	}
	if err := pause(ctx, w.job.ChunkTime); err != nil {
		return "", err
	}
	d.Offset, d.Lines = behind, d.Lines+len(facts)
	return Read, segno.OnCommit(ctx, func(tx segno.Tx) error { return countFacts(tx, facts) })
}

// countFacts writes a row for each line and adds to the counters. Nothing in
// the tables would keep it from counting a line twice.
func countFacts(tx segno.Tx, facts []fact) error {
	rows, err := json.Marshal(facts)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO demo_line (line, kind, words, bytes, sum)
SELECT value ->> 'Line', value ->> 'Kind', value ->> 'Words', value ->> 'Bytes', value ->> 'Sum' FROM json_each(?)`, string(rows))
	_, counted := tx.Exec(`INSERT INTO demo_count (kind, lines)
SELECT value ->> 'Kind', count(*) FROM json_each(?) WHERE true GROUP BY 1
ON CONFLICT (kind) DO UPDATE SET lines = lines + excluded.lines`, string(rows))
	return errors.Join(err, counted)
}
