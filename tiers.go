package segno

import (
	"context"
	"errors"
	"math"
	"slices"
)

// A Tier is one of several limits that hold together.
type Tier struct {
	// Name is the one in errors, and for Tiers.Only; empty: the limiter's own.
	Name string
	// Limiter is the limit.
	Limiter Limiter
	// Cost is what one costs here; 0 means 1.
	Cost int
}

// Tiers are limits that hold together: ten a second and ten thousand a day, say.
// They are asked in order; if one refuses, those before it get back what they
// gave, and the *RateLimited names it. Of n each tier takes n times its Cost. No
// tiers admit everything.
type Tiers []Tier

// TryTake takes n of every tier at once, or nothing of any: see Limiter.
func (t Tiers) TryTake(n int) error { return tryTake(t, n) }

// Wait takes n of every tier as soon as all have it, holding nothing of any
// while it waits: see Limiter.
func (t Tiers) Wait(ctx context.Context, n int) error { return waitFor(ctx, t, n) }

// Reserve takes n of every tier that may be given back: see Limiter.
func (t Tiers) Reserve(n int) (*Reservation, error) {
	if err := t.fits(n); err != nil {
		return nil, err
	}
	taken := make([]*Reservation, 0, len(t))
	all := &Reservation{settle: func(keep bool) {
		for _, res := range taken {
			res.end(keep)
		}
	}}
	for _, tier := range t {
		res, err := tier.Limiter.Reserve(tier.times(n))
		if err != nil {
			all.Refund()
			return nil, tier.named(err)
		}
		taken = append(taken, res)
	}
	return all, nil
}

// Only returns the tiers of the given names, in their order: for a call to
// which not all limits apply. Without names it returns all of them; a name that
// no tier has is ignored.
func (t Tiers) Only(names ...string) Tiers {
	if len(names) == 0 {
		return t
	}
	var only Tiers
	for _, tier := range t {
		if slices.Contains(names, tier.Name) {
			only = append(only, tier)
		}
	}
	return only
}

// times is what n costs in this tier.
func (t Tier) times(n int) int {
	cost := orDefault(t.Cost, 1)
	if n > math.MaxInt/cost {
		return math.MaxInt
	}
	return n * cost
}

// named puts the tier's name into the error of its limiter.
func (t Tier) named(err error) error {
	var limited *RateLimited
	if t.Name == "" || !errors.As(err, &limited) {
		return err
	}
	named := *limited
	named.Tier = t.Name
	return &named
}

func (t Tiers) check() error {
	var errs []error
	for _, tier := range t {
		switch {
		case tier.Limiter == nil:
			errs = append(errs, configFault("tier %q has no Limiter", tier.Name))
		case tier.Cost < 0:
			errs = append(errs, configFault("tier %q has a negative Cost", tier.Name))
		default:
			errs = append(errs, tier.Limiter.check())
		}
	}
	return errors.Join(errs...)
}

// fits asks every tier, before any gives something: what one will never have
// is not worth waiting for another.
func (t Tiers) fits(n int) error {
	err := t.check()
	if err == nil {
		err = fitting("", n, math.MaxInt)
	}
	for i := 0; i < len(t) && err == nil; i++ {
		err = t[i].named(t[i].Limiter.fits(t[i].times(n)))
	}
	return err
}

func (t Tiers) windows() (all []*Window) {
	for _, tier := range t {
		all = append(all, tier.Limiter.windows()...)
	}
	return all
}
