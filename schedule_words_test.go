package segno_test

import (
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

func TestAScheduleInWords(t *testing.T) {
	for _, tt := range []struct {
		schedule segno.Schedule
		want     string
	}{
		{segno.Schedule{}, "only when triggered"},
		{segno.Every(10 * time.Minute), "every 10 minutes"},
		{segno.Every(time.Hour), "every hour"},
		{segno.Every(90 * time.Minute), "every 1 hour 30 minutes"},
		{segno.Every(24 * time.Hour), "every 24 hours"},
		{segno.Every(time.Second), "every second"},
		{segno.Every(1500 * time.Millisecond), "every 1.5s"},
		{segno.FixedDelay(5 * time.Minute), "5 minutes after the end of the last run"},
		{segno.FixedDelay(time.Hour + time.Second), "1 hour 1 second after the end of the last run"},
		{segno.At(time.Date(2026, 3, 8, 9, 0, 0, 0, time.UTC)), "once, at 2026-03-08 09:00:00 UTC"},
		{segno.At(time.Date(2026, 3, 8, 9, 0, 0, 5e8, time.FixedZone("", 3600))), "once, at 2026-03-08 08:00:00.5 UTC"},
	} {
		expect(t, tt.schedule.String(), tt.schedule.Describe(), tt.want)
	}
	bad := segno.Cron("0 9 * *").Describe()
	expect(t, "a bad one says why: "+bad, strings.Contains(bad, "4 fields, want 5"), true)
}

func TestACronInWords(t *testing.T) {
	for _, tt := range []struct{ expr, want string }{
		// Times of day.
		{"CRON_TZ=America/New_York 30 2 * * *", "at 02:30 every day, America/New_York"},
		{"30 2 * * *", "at 02:30 every day, UTC"},
		{"15 30 2 * * *", "at 02:30:15 every day, UTC"},
		{"0,30 30 2 * * *", "at 02:30:00 and 02:30:30 every day, UTC"},
		{"30 3,1,2 * * *", "at 01:30, 02:30 and 03:30 every day, UTC"},
		{"0,30 9,17 * * *", "at 09:00, 09:30, 17:00 and 17:30 every day, UTC"},
		{"0 1,2,3,4,5,6,7 * * *", "at minute 0 past hours 1, 2, 3, 4, 5, 6 and 7 every day, UTC"},
		{"@daily", "at 00:00 every day, UTC"},
		// Minutes and hours.
		{"* * * * *", "every minute"},
		{"*/1 * * * *", "every minute"},
		{"*/5 * * * *", "every 5 minutes"},
		{"*/7 * * * *", "every 7th minute of every hour"},
		{"0 * * * *", "at minute 0 past every hour"},
		{"@hourly", "at minute 0 past every hour"},
		{"CRON_TZ=Asia/Kolkata 0 * * * *", "at minute 0 past every hour, Asia/Kolkata"},
		{"0,30 * * * *", "at minutes 0 and 30 past every hour"},
		{"10-20 * * * *", "at minutes 10 to 20 past every hour"},
		{"5,10-20 * * * *", "at minutes 5 and 10 to 20 past every hour"},
		{"10-20/2 * * * *", "every 2nd minute from 10 to 20 of every hour"},
		{"5/15 * * * *", "every 15th minute from 5 to 59 of every hour"},
		{"3,10-20/2 * * * *", "at minute 3 and every 2nd minute from 10 to 20 past every hour"},
		{"0 */2 * * *", "at minute 0 past every 2nd hour every day, UTC"},
		{"0 9-17 * * *", "at minute 0 past hours 9 to 17 every day, UTC"},
		{"0 9-17/2 * * *", "at minute 0 past every 2nd hour from 9 to 17 every day, UTC"},
		{"*/20 2 * * *", "every 20th minute of hour 2 every day, UTC"},
		{"* 9-17 * * MON-FRI", "every minute of hours 9 to 17 from Monday to Friday, UTC"},
		{"*/3 22-2 * * *", "every 3rd minute of hours 22 to 2 every day, UTC"},
		// Seconds.
		{"* * * * * *", "every second"},
		{"*/10 * * * * *", "every 10 seconds"},
		{"*/11 * * * * *", "every 11th second of every minute"},
		{"30 * * * * *", "at second 30 of every minute"},
		{"0-5 * * * * *", "at seconds 0 to 5 of every minute"},
		{"30 */5 * * * *", "at second 30 of every 5th minute of every hour"},
		{"30 5 * * * *", "at second 30 of minute 5 past every hour"},
		{"* 5 9 * * *", "every second of minute 5 past hour 9 every day, UTC"},
		// Days and months.
		{"0 9 1 * *", "at 09:00 on day 1 of the month, UTC"},
		{"0 9 1,15 * *", "at 09:00 on days 1 and 15 of the month, UTC"},
		{"0 9 1-7 * *", "at 09:00 on days 1 to 7 of the month, UTC"},
		{"0 9 */2 * *", "at 09:00 on every 2nd day of the month, UTC"},
		{"0 9 10/3 * *", "at 09:00 on every 3rd day of the month from 10 to 31, UTC"},
		{"0 9 29 2 *", "at 09:00 on day 29 of February, UTC"},
		{"0 9 1 */6 *", "at 09:00 on day 1 of January and July, UTC"},
		{"0 9 * 12 *", "at 09:00 every day in December, UTC"},
		{"0 * * 6-8 *", "at minute 0 past every hour in June, July and August, UTC"},
		{"0 9 * * 1", "at 09:00 on a Monday, UTC"},
		{"0 9 * * 7", "at 09:00 on a Sunday, UTC"},
		{"0 9 * * MON,fri", "at 09:00 on a Monday or a Friday, UTC"},
		{"0 9 * * 1-5", "at 09:00 from Monday to Friday, UTC"},
		{"0 9 * * FRI-MON", "at 09:00 from Friday to Monday, UTC"},
		{"0 9 * * SAT-SUN", "at 09:00 on a Sunday or a Saturday, UTC"},
		{"0 9 * * 1-5/2", "at 09:00 on a Monday, a Wednesday or a Friday, UTC"},
		{"0 9 * 1 1", "at 09:00 on a Monday, in January, UTC"},
		{"*/5 * * * 1", "every 5 minutes on a Monday, UTC"},
		{"0 9 * * 0-6", "at 09:00 every day, UTC"},
		// Both day fields: either, or both if one of them begins with a star.
		{"0 0 1 * 1", "at 00:00 on day 1 of the month or on a Monday, UTC"},
		{"0 0 1,15 * MON-FRI", "at 00:00 on days 1 and 15 of the month or from Monday to Friday, UTC"},
		{"0 0 1 6 1", "at 00:00 on day 1 of the month or on a Monday, in June, UTC"},
		{"0 0 */2 * 1", "at 00:00 on every 2nd day of the month if it is a Monday, UTC"},
		{"0 0 1 * */3", "at 00:00 on day 1 of the month if it is a Sunday, a Wednesday or a Saturday, UTC"},
	} {
		expect(t, tt.expr, segno.Cron(tt.expr).Describe(), tt.want)
	}
}

func TestADSTRuleInWords(t *testing.T) {
	for text, want := range map[string]string{
		"30 2 * * * gap=skip":                    "at 02:30 every day, UTC; a time that the clock skips is left out",
		"30 2 * * * repeat=second":               "at 02:30 every day, UTC; a time that comes twice runs the second time",
		"30 2 * * 1 gap=skip repeat=both":        "at 02:30 on a Monday, UTC; a time that the clock skips is left out, a time that comes twice runs both times",
		"TZ=Asia/Tokyo 30 2 * * * repeat=first":  "at 02:30 every day, Asia/Tokyo",
		"cron */30 * * * * gap=skip repeat=both": "every 30 minutes",
	} {
		s, err := segno.ParseSchedule(text)
		if err != nil {
			t.Errorf("%s: got error %v, want none", text, err)
		}
		expect(t, text, s.Describe(), want)
	}
}

func TestWhatAScheduleDoesWhereTheClockChanges(t *testing.T) {
	for text, want := range map[string]string{
		"every 1h":                           "counts real time",
		"30 2 * * *":                         "none in UTC",
		"TZ=Asia/Tokyo */5 2 * * *":          "counts real time: no run for a time that the clock skips, one each for a time that comes twice",
		"TZ=Asia/Tokyo 0 2 * * *":            "a time that the clock skips runs behind the gap, a time that comes twice runs the first time",
		"TZ=Asia/Tokyo @daily gap=skip":      "a time that the clock skips is left out, a time that comes twice runs the first time",
		"TZ=Asia/Tokyo @daily repeat=second": "a time that the clock skips runs behind the gap, a time that comes twice runs the second time",
		"TZ=Asia/Tokyo @daily repeat=both":   "a time that the clock skips runs behind the gap, a time that comes twice runs both times",
	} {
		s, err := segno.ParseSchedule(text)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, text, s.DescribeDST(), want)
	}
}
