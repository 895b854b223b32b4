package segno

import "time"

// note says what daylight saving time did to a slot, "" for nothing.
//
// STUB: it is replaced by the one of dst.go when that is merged; delete this file then.
func (Schedule) note(time.Time) string { return "" }
