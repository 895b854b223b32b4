package segno

import (
	"context"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A Bucket is a token bucket: Limit tokens come in every Per, evenly, and Limit
// + Burst is what it holds; it starts full. It lives in memory: a restart fills
// it. Use it by pointer; the fields must not change once it is in use.
type Bucket struct {
	// Name is the one in errors.
	Name string
	// Limit is how many tokens come in every Per.
	Limit int
	// Per is the time in which they come; 0 means 1 s.
	Per time.Duration
	// Burst is how many tokens it holds beyond Limit.
	Burst int

	once   sync.Once
	bucket *rate.Limiter
	line   line
}

// TryTake takes n tokens at once: see Limiter.
func (b *Bucket) TryTake(n int) error { return tryTake(b, n) }

// Wait takes n tokens as soon as they are there: see Limiter.
func (b *Bucket) Wait(ctx context.Context, n int) error { return waitFor(ctx, b, n) }

// Reserve takes n tokens that may be given back: see Limiter.
func (b *Bucket) Reserve(n int) (*Reservation, error) {
	if err := b.fits(n); err != nil || n == 0 {
		return nil, err
	}
	tokens, now := b.tokens(), time.Now()
	have := tokens.TokensAt(now)
	if have >= float64(b.capacity()) {
		b.line.clear()
	}
	if tokens.AllowN(now, n) {
		return &Reservation{settle: func(keep bool) {
			if !keep {
				tokens.AllowN(time.Now(), -n) // what is above the capacity runs over with the next use
			}
		}}, nil
	}
	wait := max(b.span(float64(n)-have), time.Millisecond)
	return nil, &RateLimited{Tier: b.Name, RetryAfter: wait, stand: func() time.Duration {
		return b.line.stand(now, wait, n, 0, b.span(float64(n)))
	}}
}

// Remaining returns how many whole tokens are there, 0 for a bucket that is not
// usable as configured.
func (b *Bucket) Remaining() int {
	if b.check() != nil {
		return 0
	}
	return int(min(b.tokens().Tokens(), float64(b.capacity())))
}

// tokens is the bucket proper.
func (b *Bucket) tokens() *rate.Limiter {
	b.once.Do(func() {
		b.bucket = rate.NewLimiter(rate.Limit(float64(b.Limit)/b.per().Seconds()), b.capacity())
	})
	return b.bucket
}

func (b *Bucket) per() time.Duration { return orDefault(b.Per, time.Second) }

func (b *Bucket) capacity() int {
	if b.Burst > math.MaxInt-b.Limit {
		return math.MaxInt
	}
	return b.Limit + b.Burst
}

// span is the time in which so many tokens come, rounded up.
func (b *Bucket) span(tokens float64) time.Duration {
	d := math.Ceil(tokens * float64(b.per()) / float64(b.Limit))
	if d >= float64(never) {
		return never - 1 // very long, but not for ever
	}
	return time.Duration(d)
}

func (b *Bucket) check() error {
	if b == nil {
		return configFault("the limiter is nil")
	}
	if b.Burst < 0 {
		return errorOr(measured("bucket", b.Name, b.Limit, b.Per), configFault("bucket %q has a negative Burst", b.Name))
	}
	return measured("bucket", b.Name, b.Limit, b.Per)
}

func (b *Bucket) fits(n int) error {
	if err := b.check(); err != nil {
		return err
	}
	return fitting(b.Name, n, b.capacity())
}

func (b *Bucket) windows() []*Window { return nil }
