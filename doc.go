// Package segno is an embedded, durable scheduler and workflow engine: state
// machines, their schedules and their whole history in one SQLite file. A
// program that is killed at any instant goes on where it was.
//
// A [Workflow] is a table of states, each with a function that does something
// and names the next state, and optionally one that undoes it. A [Flow] is a
// workflow registered with a [Scheduler] under an id and a [Schedule]. A run is
// one execution of it; its data is a struct of the program's own, kept as JSON.
//
//	var Fulfil = segno.Workflow[State, Order]{
//		Version: 1,
//		Initial: Reserve,
//		Timeout: time.Hour,
//		Steps: segno.Steps[State, Order]{
//			Reserve: {Do: reserve, Undo: release, Next: []State{Charge}},
//			Charge:  {Do: charge, Undo: refund, Retry: segno.Exponential(5), Timeout: 10 * time.Second},
//			Ship:    {Do: segno.Poll(shipped)},
//			Done:    {Final: true},
//		},
//	}
//
//	s := segno.New("orders.db", segno.Options{})
//	err := s.Add(segno.Flow{ID: "orders", Workflow: Fulfil, Overlap: segno.Allow(100)})
//	running, err := s.Start(ctx)
//	orders, err := segno.Bind(running, "orders", Fulfil)
//	id, err := orders.Trigger(ctx, Order{ID: "42"})
//	run, err := orders.Wait(ctx, id)
//
// # Processing models
//
// What a step does is a plain function, or one of these, each of which returns
// such a function:
//
//   - [Poll] calls until something is ready; [Timer] and [Sleep] wait for a time.
//   - [Batch] works on a list of items, [Split] on several branches side by side.
//   - [Stepped] goes on from a cursor, [Stream] reads a source window by window.
//   - [Await] waits for a signal: see [RunningScheduler.Signal].
//   - [Call] runs another flow as a child and waits for its end.
//
// They are built on two primitives that programs have, too: memos ([SaveMemo],
// [LoadMemo]), small durable values of a visit, and parking ([Snooze]), which
// leaves a run in the file without a goroutine until it is due. A [Breaker] or a
// [Limiter] stands before the attempts of the steps that name it.
//
// # Schedules
//
// A flow is due by [Every], [FixedDelay], [Cron] or [At], or when triggered. Its
// [Flow] says what becomes of slots that were missed (CatchUp, MaxLateness), that
// come while a run is open (Overlap) or whose run failed (Backoff, SlotRetries).
// Each slot has one outcome, in the view segno_slots; [Simulate] says beforehand
// what it will be.
//
// # Guarantees
//
//   - A transition is atomic and durable: next state, data, due times, the
//     flow's status and the writes joined by [OnCommit] are one synced
//     transaction before the next state's code starts.
//   - Steps run at least once, transitions happen exactly once. A crash repeats
//     only the unit that was in flight: an attempt, one poll, one item of a batch,
//     one branch of a split, one step of a cursor, one window of a stream, one undo.
//     Polls that change nothing and follow each other within a second are the
//     exception: up to a second of them is repeated.
//   - Streaks, backoff windows, trips, pauses, cadence, retry attempts, timers,
//     poll counts, cursors, items and branches that are done, signals, children,
//     open breakers, deadlines, cancels and half-done rollbacks go on after a
//     restart. A rollback calls the Undo of each finished visit once its outcome
//     is unknown, last visit first.
//   - One owner per file: a second one gets [ErrLocked], or waits as a standby.
//
// # Watching
//
// The history of each run is in the file. An [Observer] in Options.Observers is
// told of the same, and more, as it happens; [SlogObserver] logs it.
//
// # Caveats
//
//   - A step may run twice. Hand [Info].Key to other systems as the idempotency
//     key, and join writes to the same file with OnCommit.
//   - The text of a State constant is stored. Rename the constant, not the text.
//   - A visit whose last attempt crashed, timed out or panicked may or may not
//     have had its effects. It is undone only with Step.UndoUncertain; otherwise
//     the history marks it uncertain.
//   - A step that ignores its context cannot be stopped, only abandoned.
//   - Errors of steps are kept as text: see [RunError].
//   - Old runs are deleted, completed ones after 30 days: see [Retention]. A key
//     lives as long as its run.
//   - The file must lie on a local disk, and belongs to one process at a time.
package segno
