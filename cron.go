package segno

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones must load in a container that has no zone files

	"github.com/robfig/cron/v3"
)

// A cronSpec is a parsed cron expression in its zone.
//
// The two day fields follow Vixie cron: if both are restricted, either may match ("on the 1st or on
// a Monday"); if one begins with *, even as */2, both must. robfig/cron forgets the star of */2, so
// this is read from the text, as is wild.
type cronSpec struct {
	text string         // canonical fields, without the zone
	zone *time.Location // never nil, never time.Local

	second, minute, hour, dom, month, dow uint64 // one bit per matching value

	orDays bool // both day fields are restricted: either may match
	wild   bool // the minute or the hour begins with *: fires in real time, see next
	dst    DST  // what else holds at a change of the clock, if it is not wild
}

// A cronField is one column of a cron expression.
type cronField struct {
	name     string
	min, max int
	names    []string // names[i] stands for min+i; its first three letters do too
}

var cronFields = [6]cronField{
	{name: "second", max: 59},
	{name: "minute", max: 59},
	{name: "hour", max: 23},
	{name: "day-of-month", min: 1, max: 31},
	{name: "month", min: 1, max: 12, names: []string{"JANUARY", "FEBRUARY", "MARCH", "APRIL", "MAY", "JUNE",
		"JULY", "AUGUST", "SEPTEMBER", "OCTOBER", "NOVEMBER", "DECEMBER"}},
	{name: "day-of-week", max: 6, names: []string{"SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY",
		"FRIDAY", "SATURDAY"}},
}

var cronDescriptors = map[string]string{
	"@yearly":   "0 0 1 1 *",
	"@annually": "0 0 1 1 *",
	"@monthly":  "0 0 1 * *",
	"@weekly":   "0 0 * * 0",
	"@daily":    "0 0 * * *",
	"@midnight": "0 0 * * *",
	"@hourly":   "0 * * * *",
}

// cronParser takes what the normaliser wrote: always six fields, no zone, no descriptor.
var cronParser = cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// maxCronLen bounds what an error message may have to quote; every sensible list is far shorter.
const maxCronLen = 1000

// parseCron parses five fields, or six with seconds first, or a descriptor such as @daily, after an
// optional CRON_TZ=Zone or TZ=Zone. The zone is UTC when none is given. What is wrong is an
// ErrSchedule, a date that no calendar has is an ErrNeverFires.
func parseCron(expr string) (*cronSpec, error) {
	if len(expr) > maxCronLen {
		return nil, badCron("%d bytes long, at most %d are allowed", len(expr), maxCronLen)
	}
	zone, words, err := splitCronZone(strings.Fields(expr))
	if err != nil {
		return nil, err
	}
	fields, err := splitCronFields(words)
	if err != nil {
		return nil, err
	}
	var text, plain [6]string
	for i, f := range cronFields {
		if text[i], plain[i], err = f.normalise(fields[i]); err != nil {
			return nil, err
		}
	}
	spec, err := robfigParse(strings.Join(plain[:], " "))
	if err != nil {
		return nil, err
	}
	const noStar = 1<<63 - 1 // robfig's top bit is its own idea of the star
	c := &cronSpec{
		text:   strings.TrimPrefix(strings.Join(text[:], " "), "0 "),
		zone:   zone,
		second: spec.Second & noStar,
		minute: spec.Minute & noStar,
		hour:   spec.Hour & noStar,
		dom:    spec.Dom & noStar,
		month:  spec.Month & noStar,
		dow:    spec.Dow & noStar,
		orDays: text[3][0] != '*' && text[5][0] != '*',
		wild:   text[1][0] == '*' || text[2][0] == '*',
	}
	if !c.possible() {
		return nil, fmt.Errorf("%w: day-of-month field %q in month field %q on day-of-week field %q: no such date "+
			"in any year; choose a day that the month has", ErrNeverFires, text[3], text[4], text[5])
	}
	return c, nil
}

// String returns the canonical text of c, which parseCron reads back as the same schedule, its DST
// rule aside.
func (c *cronSpec) String() string {
	if c.zone == time.UTC {
		return c.text
	}
	return "CRON_TZ=" + c.zone.String() + " " + c.text
}

func badCron(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSchedule, fmt.Sprintf(format, args...))
}

// splitCronZone takes a leading CRON_TZ= or TZ= off words.
func splitCronZone(words []string) (*time.Location, []string, error) {
	if len(words) == 0 {
		return nil, nil, badCron("the expression is empty; write five fields or a descriptor such as @daily")
	}
	key, name, ok := strings.Cut(words[0], "=")
	if !ok || !strings.EqualFold(key, "TZ") && !strings.EqualFold(key, "CRON_TZ") {
		return time.UTC, words, nil
	}
	const wayOut = "use a name such as Europe/Berlin, or UTC"
	switch strings.ToLower(name) {
	case "":
		return nil, nil, badCron("zone %q: the name is missing; %s", words[0], wayOut)
	case "local", "localtime":
		// The stored schedule would mean something else on the next machine.
		return nil, nil, badCron("zone %q: depends on the machine; %s", words[0], wayOut)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, nil, badCron("zone %q: %v; %s", words[0], err, wayOut)
	}
	return zone, words[1:], nil
}

// splitCronFields returns the six fields of words, second first.
func splitCronFields(words []string) ([]string, error) {
	const want = "5 (minute hour day-of-month month day-of-week) or 6 (second first)"
	if len(words) > 0 && words[0][0] == '@' {
		return expandCronDescriptor(words)
	}
	for i, w := range words {
		if i > 0 && w[0] == '#' {
			return nil, badCron("%q: comments are not part of an expression; remove it", strings.Join(words[i:], " "))
		}
	}
	switch n := len(words); n {
	case 5:
		return append([]string{"0"}, words...), nil
	case 6:
		return words, nil
	case 7:
		return nil, badCron("7 fields, want %s; a year field is not supported", want)
	default:
		return nil, badCron("%d fields, want %s", n, want)
	}
}

func expandCronDescriptor(words []string) ([]string, error) {
	name := strings.ToLower(words[0])
	if strings.HasPrefix(name, "@every") {
		return nil, badCron("%q: use segno.Every, which keeps its phase over a restart", strings.Join(words, " "))
	}
	text, ok := cronDescriptors[name]
	if !ok || len(words) > 1 {
		return nil, badCron("descriptor %q: not one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly",
			strings.Join(words, " "))
	}
	return append([]string{"0"}, strings.Fields(text)...), nil
}

// robfigParse turns six plain fields into bits. The normaliser should leave nothing to refuse, let
// alone to panic about; robfig is not trusted with that.
func robfigParse(text string) (spec *cron.SpecSchedule, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = badCron("%q: the parser panicked: %v", text, r)
		}
	}()
	s, err := cronParser.Parse(text)
	if err != nil {
		return nil, badCron("%q: %v", text, err)
	}
	spec, ok := s.(*cron.SpecSchedule)
	if !ok {
		return nil, badCron("%q: parsed to a %T", text, s)
	}
	return spec, nil
}

// cronItem is one item of a list: * or ?, a value or a range, and perhaps a step. 05 is a number,
// 0005 is a slip.
var cronItem = regexp.MustCompile(strings.ReplaceAll(`^(?:([*?])|(V|[A-Z]{3,})(?:-(V|[A-Z]{3,}))?)(?:/(V))?$`,
	"V", "0?[0-9]|[1-9][0-9]{1,3}"))

// cronForeign lists what other crons know and this one does not. W and L come after a number too.
var cronForeign = []struct {
	item   *regexp.Regexp
	reason string
}{
	{regexp.MustCompile(`#`), "# (nth weekday) is not supported; fire on every such weekday and return early"},
	{regexp.MustCompile(`^(\d+|L)W$`), "W (nearest weekday) is not supported; fire on MON-FRI and return early"},
	{regexp.MustCompile(`^(L|L-\d+|\d+L|(SUN|MON|TUE|WED|THU|FRI|SAT)L)$`), "L (last) is not supported; " +
		"fire on 28-31, or on every such weekday, and return early"},
	{regexp.MustCompile(`^H(/|\(|$)`), "H (hashed) is not supported; write a number"},
}

// normalise checks one field and returns it twice: in canonical spelling, and in the subset that
// robfig reads correctly.
func (f *cronField) normalise(field string) (text, plain string, err error) {
	items := strings.Split(strings.ToUpper(field), ",")
	plains := make([]string, len(items))
	for i, item := range items {
		if items[i], plains[i], err = f.item(item); err != nil {
			return "", "", badCron("%s field %q: %v", f.name, field, err)
		}
		if items[i] == "*" && len(items) > 1 {
			return "", "", badCron("%s field %q: * already covers every value; write it alone", f.name, field)
		}
	}
	return strings.Join(items, ","), strings.Join(plains, ","), nil
}

// item does the work of normalise for one item of the list.
func (f *cronField) item(item string) (text, plain string, err error) {
	m := cronItem.FindStringSubmatch(item)
	if m == nil {
		return "", "", f.refuse(item)
	}
	star, from, to, step := m[1], m[2], m[3], m[4]
	if star != "" {
		return f.star(step)
	}
	lo, text, err := f.value(from)
	if err != nil {
		return "", "", err
	}
	hi := lo
	switch {
	case to != "":
		hi, to, err = f.value(to)
		text += "-" + to
	case step != "":
		hi = f.max // N/step means N-max/step
	}
	if err != nil {
		return "", "", err
	}
	lo, hi = f.unwrap(lo, hi)
	n, suffix, err := f.step(step, lo, hi)
	if err != nil {
		return "", "", err
	}
	return text + suffix, f.list(lo, hi, n), nil
}

func (f *cronField) star(step string) (text, plain string, err error) {
	_, suffix, err := f.step(step, f.min, f.max)
	return "*" + suffix, "*" + suffix, err
}

// value reads a number or a name and returns its canonical spelling with it.
func (f *cronField) value(s string) (int, string, error) {
	for i, name := range f.names {
		if s == name || s == name[:3] {
			return f.min + i, name[:3], nil
		}
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, "", f.refuse(s)
	}
	sunday := f.name == "day-of-week" && n == 7
	if !sunday && (n < f.min || n > f.max) {
		return 0, "", fmt.Errorf("%d is outside the range %d-%d", n, f.min, f.max)
	}
	return n, strconv.Itoa(n), nil
}

// unwrap makes a range ascend: 22-2 becomes 22-26, and value 26 is written as 2.
func (f *cronField) unwrap(lo, hi int) (int, int) {
	if lo > f.max { // Sunday 7 is 0 at the start of a range; at its end it stays behind Saturday
		if hi == lo {
			hi = f.min
		}
		lo = f.min
	}
	if hi < lo {
		hi += f.max - f.min + 1
	}
	return lo, hi
}

func (f *cronField) wrap(v int) int {
	return f.min + (v-f.min)%(f.max-f.min+1)
}

// step reads the step over lo-hi, 1 if there is none, and returns its canonical spelling with it.
func (f *cronField) step(s string, lo, hi int) (int, string, error) {
	if s == "" {
		return 1, "", nil
	}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		return 0, "", f.refuse("/" + s)
	case n == 0:
		return 0, "", errors.New("step 0 stands still; write 1 or more")
	case n > 1 && n > hi-lo:
		return 0, "", fmt.Errorf("step %d is larger than the range %d-%d; only %[2]d would match, so write %[2]d",
			n, lo, f.wrap(hi))
	}
	return n, "/" + strconv.Itoa(n), nil
}

// list writes a range out, because robfig knows neither Sunday 7 nor ranges that wrap.
func (f *cronField) list(lo, hi, step int) string {
	var values []string
	for v := lo; v <= hi; v += step {
		values = append(values, strconv.Itoa(f.wrap(v)))
	}
	return strings.Join(values, ",")
}

// refuse says what is wrong with an item that is not in the grammar.
func (f *cronField) refuse(item string) error {
	if item == "" {
		return errors.New("an item is missing beside a comma; remove the comma")
	}
	for _, foreign := range cronForeign {
		if foreign.item.MatchString(item) {
			return errors.New(foreign.reason)
		}
	}
	names := ""
	if f.names != nil {
		names = fmt.Sprintf(", a name such as %s", f.names[0][:3])
	}
	return fmt.Errorf("%q is none of: *, a value in %d-%d%s, a range such as %[2]d-%[5]d, a step such as */2",
		item, f.min, f.max, names, f.min+2)
}
