package segno

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/robfig/cron/v3"
)

func mustCron(t testing.TB, expr string) *cronSpec {
	t.Helper()
	c, err := parseCron(expr)
	if err != nil {
		t.Fatalf("parseCron(%q): %v", expr, err)
	}
	return c
}

func cronTime(t testing.TB, zone, text string) time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.ParseInLocation("2006-01-02 15:04:05", text, loc)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// cronFirings walks c from the given time and returns n firings in the layout, in c's zone.
func cronFirings(t testing.TB, c *cronSpec, from time.Time, n int, layout string) []string {
	t.Helper()
	var got []string
	for range n {
		at := c.next(from)
		if !at.After(from) {
			t.Fatalf("%s: next(%s): got = %s, want a later time", c, from, at)
		}
		got = append(got, at.In(c.zone).Format(layout))
		from = at
	}
	return got
}

// One subtest for each fault of robfig/cron v3.0.1 that the parser or next guards against.
func TestCronGuards(t *testing.T) {
	t.Run("B1", func(t *testing.T) { // a zone and nothing else panicked
		for _, expr := range []string{"TZ=UTC", "CRON_TZ=America/New_York", "TZ=", "CRON_TZ=", "TZ=\t"} {
			wantBadCron(t, expr, "")
		}
	})
	t.Run("B2", func(t *testing.T) { // white space and spelling of the zone
		for _, expr := range []string{"TZ=Europe/Berlin\t0 5 * * *", "\n  cron_tz=Europe/Berlin\n 0\t5  * * * ",
			"tz=Europe/Berlin 0 5 * * *"} {
			wantCronText(t, expr, "CRON_TZ=Europe/Berlin 0 5 * * *")
		}
		wantCronText(t, "TZ=UTC 0 5 * * *", "0 5 * * *")
		wantBadCron(t, "TZ= 0 5 * * *", "the name is missing")
		wantBadCron(t, "TZ=Local 0 5 * * *", "depends on the machine")
		wantBadCron(t, "TZ=localtime 0 5 * * *", "depends on the machine")
		wantBadCron(t, "TZ=Mars/Base 0 5 * * *", "use a name such as Europe/Berlin")
		wantBadCron(t, "TZ=../UTC 0 5 * * *", `zone "TZ=../UTC"`)
	})
	t.Run("B3", func(t *testing.T) { // without a zone the argument's was used
		c := mustCron(t, "0 9 * * *")
		at := cronTime(t, "UTC", "2026-06-01 00:00:00")
		for _, zone := range []string{"UTC", "America/New_York", "Asia/Tokyo"} {
			got := c.next(at.In(cronTime(t, zone, "2026-06-01 00:00:00").Location()))
			if want := at.Add(9 * time.Hour); got != want { // != compares the location too
				t.Errorf("asked in %s: got = %v, want = %v", zone, got, want)
			}
		}
		if got := c.next(time.Now()); strings.Contains(got.String(), "m=") {
			t.Errorf("got = %v, want no monotonic reading", got)
		}
	})
	t.Run("B4", func(t *testing.T) {
		wantFirings(t, "TZ=Europe/Berlin 30 2 * * *", "2026-03-28 12", "29 03:00", "30 02:30")
	})
	t.Run("B5", func(t *testing.T) {
		wantFirings(t, "TZ=Europe/Berlin 30 2 * * *", "2026-10-24 12", "25 02:30", "26 02:30")
	})
	t.Run("B6", func(t *testing.T) {
		wantFirings(t, "TZ=Australia/Lord_Howe 0 2,3,9 * * *", "2026-04-05 00", "05 02:00", "05 03:00", "05 09:00")
		wantFirings(t, "TZ=Australia/Lord_Howe 0 0 * * *", "2026-04-05 12", "06 00:00")
		wantFirings(t, "TZ=Australia/Lord_Howe 0 3 * * *", "2026-10-04 00", "04 03:00")
		wantFirings(t, "TZ=Australia/Lord_Howe 30,45 1 * * *", "2026-04-05 00", "05 01:30", "05 01:45", "06 01:30")
	})
	t.Run("B7", func(t *testing.T) { // a job a day ran 432,872 times in 4 s
		wantFirings(t, "TZ=Pacific/Chatham 45 3 * * *", "2026-04-04 12", "05 03:45", "06 03:45")
		wantFirings(t, "TZ=Pacific/Chatham 45 2 * * *", "2026-04-04 12", "05 02:45", "06 02:45")
		c := mustCron(t, "TZ=Pacific/Chatham 45 3 * * *")
		start := cronTime(t, "Pacific/Chatham", "2026-04-05 00:00:00")
		for at := start; at.Before(start.Add(6 * time.Hour)); at = at.Add(time.Second) {
			if got := c.next(at); !got.After(at) {
				t.Fatalf("next(%s): got = %s, want a later time", at, got)
			}
		}
	})
	t.Run("B8", func(t *testing.T) {
		wantFirings(t, "TZ=Africa/Cairo 0 9 24 4 *", "2025-05-01 00", "24 09:00")
		for day := 18; day <= 24; day++ { // the answer depended on the day of asking
			wantFirings(t, "TZ=Africa/Cairo 0 12 * * 5", fmt.Sprintf("2026-04-%d 01", day), "24 12:00")
		}
	})
	t.Run("B9", func(t *testing.T) { // an endless loop where a date was left out
		wantFirings(t, "TZ=Pacific/Apia 30 3 * * 6", "2011-12-29 00", "31 03:30")
		wantFirings(t, "TZ=Pacific/Kwajalein 30 3 * * 0", "1993-08-20 00", "22 03:30")
		wantFirings(t, "TZ=Pacific/Kiritimati 30 3 * * 0", "1994-12-30 00", "01 03:30")
		wantFirings(t, "TZ=Pacific/Apia 0 0 30 12 *", "2011-12-29 00", "30 00:00") // of 2012
	})
	t.Run("B11", func(t *testing.T) { // @every rounded to seconds and restarted its phase
		for _, expr := range []string{"@every 5m", "@EVERY 5m", "@every", "TZ=UTC @every -1h", "@every  500ms "} {
			wantBadCron(t, expr, "use segno.Every")
		}
		wantCronText(t, " @Daily ", "0 0 * * *")
		wantCronText(t, "TZ=Europe/Berlin @hourly", "CRON_TZ=Europe/Berlin 0 * * * *")
		wantBadCron(t, "@reboot", `descriptor "@reboot": not one of @yearly`)
		wantBadCron(t, "@daily 5", `descriptor "@daily 5"`)
	})
	t.Run("B13", func(t *testing.T) { // garbage was accepted
		for _, field := range []string{"*-garbage", "?-3", "*-1-2-3", "+5", "0005", "1,,2", ",5", "5,", "-5", "5-", "5/",
			"/5", "*/", "**", "1-2-3", "1/2/3", "MON", "0x5", "1.5", "*,5", "5,*", "5,?", "٣"} {
			wantBadCron(t, field+" * * * *", fmt.Sprintf("minute field %q: ", field))
		}
		wantBadCron(t, strings.Repeat("1,", 600)+"1 * * * *", "1209 bytes long")
		wantCronText(t, "05 09 01 JAN ?", "5 9 1 JAN *")
	})
	t.Run("B14", func(t *testing.T) { // an empty field never fired and burned seconds
		wantBadCron(t, ", * * * *", "an item is missing")
		wantBadCron(t, ", * * * * *", `second field ",": an item is missing`)
	})
	t.Run("B15", func(t *testing.T) {
		wantBadCron(t, "*/90 * * * *", `segno: bad schedule: minute field "*/90": step 90 is larger than the range 0-59`)
		wantBadCron(t, "*/60 * * * *", "only 0 would match, so write 0")
		wantBadCron(t, "0 */24 * * *", "step 24 is larger than the range 0-23")
		wantBadCron(t, "0 10-20/11 * * *", "step 11 is larger than the range 10-20")
		wantBadCron(t, "50/15 * * * *", "step 15 is larger than the range 50-59")
		wantBadCron(t, "*/0 * * * *", "step 0")
		wantFirings(t, "5/15 * * * *", "2026-06-01 00", "01 00:05", "01 00:20", "01 00:35", "01 00:50", "01 01:05")
	})
	t.Run("B16", func(t *testing.T) {
		for _, expr := range []string{"0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "TZ=Asia/Tokyo * * 30-31 FEB *"} {
			if c, err := parseCron(expr); !errors.Is(err, ErrNeverFires) {
				t.Errorf("parseCron(%q): got = %v, %v, want ErrNeverFires", expr, c, err)
			}
		}
		wantFirings(t, "0 0 31 2 1", "2026-02-01 00", "02 00:00") // OR: Mondays in February
		if got := mustCron(t, "0 9 * * *").next(cronTime(t, "UTC", "9999-12-31 10:00:00")); !got.IsZero() {
			t.Errorf("after the last year: got = %v, want the zero time", got)
		}
	})
	t.Run("B17", func(t *testing.T) { // 2100 is no leap year
		got := mustCron(t, "TZ=Europe/Berlin 0 12 29 2 *").next(cronTime(t, "UTC", "2096-03-01 00:00:00"))
		if want := cronTime(t, "UTC", "2104-02-29 11:00:00"); !got.Equal(want) {
			t.Errorf("got = %v, want = %v", got, want)
		}
		got = mustCron(t, "* * 29 2 */6").next(cronTime(t, "UTC", "2076-03-01 00:00:00")) // a Sunday or a Saturday
		if want := cronTime(t, "UTC", "2088-02-29 00:00:00"); !got.Equal(want) {
			t.Errorf("got = %v, want = %v", got, want)
		}
	})
	t.Run("B18", func(t *testing.T) {
		// A star with a step is still a star: odd days that are Mondays, 15 and 29 June 2026.
		wantFirings(t, "0 0 */2 * 1", "2026-06-02 00", "15 00:00", "29 00:00")
		wantFirings(t, "0 0 1 * */2", "2026-06-02 00", "01 00:00") // 1 August, a Saturday
		wantFirings(t, "0 0 15 * 1", "2026-06-02 00", "08 00:00", "15 00:00", "22 00:00")
		for expr, want := range map[string]bool{"0 0 15 * 1": true, "0 0 1-31 * 1": true, "0 0 */2 * 1": false,
			"0 0 ? * 1": false, "0 0 1 * *": false, "0 0 1 * */2": false} {
			if got := mustCron(t, expr).orDays; got != want {
				t.Errorf("%s: orDays: got = %t, want = %t", expr, got, want)
			}
		}
	})
	t.Run("B19", func(t *testing.T) { // common spellings that were refused
		for expr, plain := range map[string]string{
			"0 9 * * 7":             "0 9 * * 0",
			"0 9 * * 5-7":           "0 9 * * 0,5,6",
			"0 9 * * 0-7":           "0 9 * * 0-6",
			"0 9 * * 7-2":           "0 9 * * 0-2",
			"0 9 * * 7-7":           "0 9 * * 0",
			"0 9 * * FRI-MON":       "0 9 * * 0,1,5,6",
			"0 9 * * mon-SUN":       "0 9 * * 0-6",
			"0 9 * * SAT-WED/2":     "0 9 * * 6,1,3",
			"0 22-2 * * *":          "0 0-2,22,23 * * *",
			"50-10/10 * * * *":      "0,10,50 * * * *",
			"0 0 28-3 * *":          "0 0 1-3,28-31 * *",
			"0 0 1 November-Feb *":  "0 0 1 1,2,11,12 *",
			"0 9 * * Monday,friday": "0 9 * * 1,5",
		} {
			c, want := mustCron(t, expr), mustCron(t, plain)
			c.text, c.wild = want.text, want.wild
			if *c != *want {
				t.Errorf("%s: got = %+v, want = %+v", expr, *c, *want)
			}
		}
		wantCronText(t, "0 9 * * Friday-mon", "0 9 * * FRI-MON")
		wantBadCron(t, "0 0 L * *", `day-of-month field "L": L (last) is not supported; fire on 28-31`)
		wantBadCron(t, "0 0 * * FRIL", "L (last)")
		wantBadCron(t, "0 0 15W * *", "W (nearest weekday)")
		wantBadCron(t, "0 0 LW * *", "W (nearest weekday)")
		wantBadCron(t, "0 0 * * 5#2", "# (nth weekday)")
		wantBadCron(t, "H H(0-7) * * *", `minute field "H": H (hashed)`)
		wantBadCron(t, "H/15 * * * *", "H (hashed)")
		wantBadCron(t, "0 9 * * * # nightly", "comments are not part")
		wantBadCron(t, "0 0 9 * * * 2030", "a year field is not supported")
		wantBadCron(t, "0 9 * *", "4 fields, want 5")
		wantBadCron(t, "0 9 * * APRIL", `"APRIL" is none of`)
		wantBadCron(t, "75 * * * *", "75 is outside the range 0-59")
		wantBadCron(t, "0 9 0 * *", "0 is outside the range 1-31")
		wantBadCron(t, "0 9 * * 8", "8 is outside the range 0-6")
	})
	t.Run("B28", func(t *testing.T) { // a container has no zone files
		f, err := parser.ParseFile(token.NewFileSet(), "cron.go", nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range f.Imports {
			if s.Path.Value == `"time/tzdata"` {
				return
			}
		}
		t.Error("cron.go does not import time/tzdata")
	})
	t.Run("B29", func(t *testing.T) { // a nil location panicked
		for _, expr := range []string{"@daily", "0 9 * * *", "TZ=UTC 0 9 * * *", "TZ=Asia/Tokyo 0 9 * * *"} {
			if zone := mustCron(t, expr).zone; zone == nil || zone == time.Local {
				t.Errorf("%s: zone: got = %v, want one that is the same everywhere", expr, zone)
			}
		}
	})
}

// wantBadCron checks that expr is refused with an ErrSchedule that says so in words.
func wantBadCron(t *testing.T, expr, words string) {
	t.Helper()
	c, err := parseCron(expr)
	if !errors.Is(err, ErrSchedule) || !strings.Contains(err.Error(), words) {
		t.Errorf("parseCron(%q): got = %v, %v, want an ErrSchedule with %q", expr, c, err, words)
	}
}

func wantCronText(t *testing.T, expr, want string) {
	t.Helper()
	c := mustCron(t, expr)
	if got := c.String(); got != want {
		t.Errorf("parseCron(%q).String(): got = %q, want = %q", expr, got, want)
	}
	if again := mustCron(t, want); !sameCron(again, c) {
		t.Errorf("parseCron(%q), the text of %q: got = %+v, want = %+v", want, expr, *again, *c)
	}
}

// sameCron compares zones by name, as each load makes another pointer.
func sameCron(a, b *cronSpec) bool {
	x, y := *a, *b
	x.zone, y.zone = nil, nil
	return x == y && a.zone.String() == b.zone.String()
}

// wantFirings checks the first firings after an hour in expr's zone, as day and time.
func wantFirings(t *testing.T, expr, hour string, want ...string) {
	t.Helper()
	c := mustCron(t, expr)
	from := cronTime(t, c.zone.String(), hour+":00:00")
	if got := cronFirings(t, c, from, len(want), "02 15:04"); !slices.Equal(got, want) {
		t.Errorf("%s: got = %q, want = %q", expr, got, want)
	}
}

func TestCronSeconds(t *testing.T) {
	c := mustCron(t, "*/20 59 23 31 12 *")
	got := cronFirings(t, c, cronTime(t, "UTC", "2026-01-01 00:00:00"), 4, time.DateTime)
	want := []string{"2026-12-31 23:59:00", "2026-12-31 23:59:20", "2026-12-31 23:59:40", "2027-12-31 23:59:00"}
	if !slices.Equal(got, want) {
		t.Errorf("got = %q, want = %q", got, want)
	}
	wantCronText(t, "00 0 9 * * *", "0 9 * * *")
	wantCronText(t, "5 0 9 * * *", "5 0 9 * * *")
}

func TestCronNextIsStrictlyAfter(t *testing.T) {
	c := mustCron(t, "* * * * * *")
	at := cronTime(t, "UTC", "2026-06-01 00:00:00")
	for _, offset := range []time.Duration{0, 1, time.Second - 1} {
		if got, want := c.next(at.Add(offset)), at.Add(time.Second); !got.Equal(want) {
			t.Errorf("next(+%s): got = %s, want = %s", offset, got, want)
		}
	}
	for _, sec := range []int64{-1 << 63, -1 << 62, -1 << 40, 1 << 40, 1 << 62, 1<<63 - 1} {
		after := time.Unix(sec, 0)
		if got := c.next(after); !got.IsZero() && !got.After(after) {
			t.Errorf("next(%d s): got = %s, want zero or later", sec, got)
		}
	}
}

// Where no clock changes, robfig's Next is right, and so a reference.
func TestCronAgreesWithRobfig(t *testing.T) {
	agreesWithRobfig(t, 2_000)
}

func TestLongCronAgreesWithRobfig(t *testing.T) {
	if !zonesLong() {
		t.Skip("set SEGNO_LONG=1 to run it")
	}
	agreesWithRobfig(t, 200_000)
}

func agreesWithRobfig(t *testing.T, pairs int) {
	t.Helper()
	robfig := cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)
	r := rand.New(rand.NewPCG(1, 2))
	zone := time.FixedZone("fixed", -(3*3600 + 30*60))
	for range pairs {
		fields := make([]string, 6)
		for i, f := range cronFields {
			fields[i] = randomCronField(r, f.min, f.max)
		}
		expr := strings.Join(fields, " ")
		c, err := parseCron(expr)
		if errors.Is(err, ErrNeverFires) {
			continue
		}
		if err != nil {
			t.Fatalf("parseCron(%q): %v", expr, err)
		}
		s, err := robfig.Parse(expr)
		if err != nil {
			t.Fatal(err)
		}
		spec := s.(*cron.SpecSchedule)
		if !c.orDays { // the star that robfig forgets
			spec.Dom |= 1 << 63
		}
		c.zone, spec.Location = zone, zone
		at := time.Unix(r.Int64N(4e9), r.Int64N(1e9))
		got, want := c.next(at), spec.Next(at)
		if want.IsZero() && got.After(at.AddDate(4, 0, 0)) {
			continue // past robfig's horizon
		}
		if !got.Equal(want) {
			t.Fatalf("%q after %s: got = %s, want = %s", expr, at.In(zone), got.In(zone), want)
		}
	}
}

func randomCronField(r *rand.Rand, lo, hi int) string {
	value := func() int { return lo + r.IntN(hi-lo+1) }
	switch r.IntN(6) {
	case 0:
		return fmt.Sprintf("*/%d", 1+r.IntN(hi-lo))
	case 1:
		return fmt.Sprint(value())
	case 2:
		a, b := value(), value()
		return fmt.Sprintf("%d-%d,%d", min(a, b), max(a, b), value())
	case 3:
		a := lo + r.IntN(hi-lo)
		b := a + 1 + r.IntN(hi-a)
		return fmt.Sprintf("%d-%d/%d", a, b, 1+r.IntN(b-a))
	default:
		return "*"
	}
}

func FuzzParseCron(f *testing.F) {
	for _, expr := range []string{"0 9 * * MON-FRI", "TZ=UTC", "CRON_TZ=Pacific/Chatham 45 3 * * *", ", * * * * *",
		"*/90 * * * *", "0 0 29 2 */6", "TZ=Pacific/Apia 30 3 * * 6", "@every 5m", "@daily", "22-2/2 0005 LW 5#2 H",
		"TZ=America/St_Johns 0,30 0,23 * * 5-7", "0 0 31 2 *"} {
		f.Add(expr, int64(1_775_000_000), int64(1))
		f.Add(expr, int64(1_325_200_000), int64(0))
	}
	f.Fuzz(func(t *testing.T, expr string, sec, nsec int64) {
		c, err := parseCron(expr)
		if err != nil {
			if !errors.Is(err, ErrSchedule) && !errors.Is(err, ErrNeverFires) {
				t.Errorf("parseCron(%q): got = %v, want an ErrSchedule or ErrNeverFires", expr, err)
			}
			return
		}
		again, err := parseCron(c.String())
		if err != nil {
			t.Fatalf("parseCron(%q), the text of %q: %v", c, expr, err)
		}
		if !sameCron(again, c) {
			t.Errorf("parseCron(%q): got = %+v, want = %+v", c, *again, *c)
		}
		if s := Cron(expr); s.Describe() == "" || s.Describe() != Cron("TZ="+c.zone.String()+" "+c.text).Describe() {
			t.Errorf("%q in words: got = %q, want the words of its text, %q", expr, s.Describe(), c)
		}
		after := time.Unix(sec, nsec%1e9)
		if got := c.next(after); !got.IsZero() && !got.After(after) {
			t.Errorf("%s: next(%s): got = %s, want zero or later", c, after, got)
		}
	})
}

func BenchmarkCronNext(b *testing.B) {
	for _, bb := range []struct{ name, expr, at string }{ // at is in UTC
		{"utc", "0 9 * * MON-FRI", "2026-06-15 12:00:00"},
		{"zone", "CRON_TZ=America/New_York 0 9 * * MON-FRI", "2026-06-15 12:00:00"},
		{"wild", "CRON_TZ=America/New_York */5 * * * *", "2026-06-15 12:00:00"},
		{"second-on-change", "CRON_TZ=America/New_York * * * * * *", "2026-11-01 05:30:00"},
		{"fixed-second-on-change", "CRON_TZ=America/New_York 0-59 0-59 0-23 * * *", "2026-11-01 06:00:00"},
		{"skipped-hour", "CRON_TZ=America/New_York * * 2 8 3 *", "2026-03-08 06:59:59"},
		{"second-in-second-pass", "CRON_TZ=America/New_York 0-59 0-59 0-23 * * * repeat=second", "2026-11-01 05:00:00"},
		{"second-in-both", "CRON_TZ=America/New_York 0-59 0-59 0-23 * * * repeat=both", "2026-11-01 05:59:59"},
		{"gap-left-out", "CRON_TZ=America/New_York 0-59 0-59 2 8 3 * gap=skip", "2026-03-08 06:59:59"},
		{"gap-run-after", "CRON_TZ=America/New_York 0-59 0-59 2 8 3 *", "2026-03-08 06:59:59"},
		{"leap-day", "CRON_TZ=America/New_York * * 29 2 */6", "2076-03-02 00:00:00"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s, at := storedSchedule("cron "+bb.expr), cronTime(b, "UTC", bb.at)
			for b.Loop() {
				if s.next(time.Time{}, at).IsZero() {
					b.Fatal("got = no time, want one")
				}
			}
		})
	}
}

func BenchmarkParseCron(b *testing.B) {
	for b.Loop() {
		mustCron(b, "*/5 9-17 * * MON-FRI")
	}
}
