package demo

import (
	"os"
	"time"

	"github.com/segnodev/segno"
)

// An outage is the script of the upstream's troubles, which the probe sees as
// failures: a short one that only makes a streak, then one that trips the flow.
type outage struct {
	db    string
	beat  int
	since time.Time
	calm  time.Duration // between its events
	say   func(about, format string, args ...any)
	reset func() error // of the tripped flow
}

// A beat is one step of the script: it waits for something, then does something.
type beat struct {
	come func(o *outage, v *view) bool
	do   func(o *outage) error
}

// longOutage is where the script begins that ends in a trip.
const longOutage = 3

var beats = []beat{
	{func(o *outage, v *view) bool { return answering(v) && o.waited(v) > o.calm }, (*outage).down},
	{func(_ *outage, v *view) bool { return v.probe.FailureStreak > 0 }, (*outage).up},
	{func(_ *outage, v *view) bool { return answering(v) }, (*outage).wait},
	{func(o *outage, v *view) bool { return o.waited(v) > o.calm/3 }, (*outage).down},
	{func(_ *outage, v *view) bool { return v.probe.Status == segno.StatusTripped }, (*outage).wait},
	{func(o *outage, v *view) bool { return o.waited(v) > o.calm }, (*outage).repair},
	{func(_ *outage, v *view) bool { return answering(v) }, (*outage).wait},
}

// waited is for how long the script stands where it is.
func (o *outage) waited(v *view) time.Duration { return v.at.Sub(o.since) }

// answering reports whether the probe's last run succeeded.
func answering(v *view) bool {
	return v.probe.Status == segno.StatusCompleted && v.probe.FailureStreak == 0
}

// step goes on with the script if its next moment has come.
func (o *outage) step(v *view) error {
	if o.over() || !beats[o.beat].come(o, v) {
		return nil
	}
	if err := beats[o.beat].do(o); err != nil {
		return err
	}
	o.beat, o.since = o.beat+1, v.at
	return nil
}

func (o *outage) over() bool { return o.beat == len(beats) }

// again plays the long outage once more, for a kill that waits for it.
func (o *outage) again() { o.beat = longOutage }

func (o *outage) wait() error { return nil }

func (o *outage) up() error {
	o.say("upstream", "it comes back")
	return os.WriteFile(upstream(o.db), nil, 0o600)
}

func (o *outage) down() error {
	o.say("upstream", "it goes down")
	return os.Remove(upstream(o.db))
}

// repair does what a person would: mend the cause, then reset the flow.
func (o *outage) repair() error {
	if err := o.up(); err != nil {
		return err
	}
	o.say("probe", "is reset by hand")
	return o.reset()
}
