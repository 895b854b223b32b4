// Package segnotest helps to test programs that use segno.
//
// [Run] runs a workflow like a function, on a throwaway file. [FailTimes] and
// [PanicTimes] make a step go wrong a few times before it works. A [Recorder] in
// Options.Observers keeps what happens, and [CompletedWith], [Path], [Entered],
// [Covered] and [Balanced] check it:
//
//	func TestAnOrderSurvivesASlowBank(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) { // the waits between the attempts take no time
//			var rec segnotest.Recorder
//			slow := segnotest.FailTimes(2, errSlow, charge)
//			run, err := segnotest.Run(t, fulfil(slow), Order{ID: "42"}, segno.Options{Observers: []segno.Observer{&rec}})
//			if err != nil || run.Data.Txn == "" {
//				t.Errorf("run: got = %+v, %v, want it charged", run.Data, err)
//			}
//			segnotest.Path(t, &rec, Charge, Ship, Done)
//		})
//	}
//
// # Crash sweeps
//
// [CrashSweep] runs a scenario, kills it before and after every single commit,
// starts it again on the same file, and fails unless it ends as it would have
// without the kill. Time is fake (see [testing/synctest]): a scenario of an hour
// takes a moment. The database is a real file; with TMPDIR in memory its syncs
// cost nothing.
//
//	func TestOrdersSurviveCrashes(t *testing.T) {
//		segnotest.CrashSweep(t, segnotest.Scenario{
//			Register: func(s *segno.Scheduler, fx *segnotest.Effects) error {
//				fulfil := segno.Workflow[State, Order]{Initial: Charge, Steps: segno.Steps[State, Order]{
//					Charge: {Do: func(ctx context.Context, o *Order) (State, error) {
//						fx.Do(ctx, "charge "+o.ID)
//						return Ship, nil
//					}},
//					Ship: {Do: segno.Sleep[Order](time.Hour, Done)},
//					Done: {Final: true},
//				}}
//				return s.Manual("orders", fulfil)
//			},
//			Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
//				_, err := r.Trigger(ctx, "orders", segno.Trigger{Key: "42", Input: Order{ID: "42"}})
//				return err
//			},
//		})
//	}
//
// Every kill makes a new incarnation of the program: Register is called anew,
// with a new [Effects], and nothing that the last one had in memory may matter.
// A step that is to fail once must therefore tell by what is durable, such as
// its Info.Attempt, and Drive must be idempotent: trigger with a Key, and ask
// the clock (see [At]) what lies behind.
//
// A failure names the kill by the number of the commit and the functions that
// made it. The incarnation dies as a process does: nothing that it writes or
// does counts from then on, the lock is free, and the next one starts at the
// same instant. What the sweep cannot show is what the disk does in a crash.
//
// # Schedulers
//
// [Open] starts a scheduler on a temporary file that is stopped and checked at
// the end of the test; [Check] checks any file, in use or not. Both are at home
// in a bubble and outside of one.
package segnotest
