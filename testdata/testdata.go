// Package testdata carries real data into binaries. The go tool leaves a
// directory of this name out of ./..., but it can be imported.
package testdata

import _ "embed" // for the file below

// Tzdata is the IANA Time Zone Database as one file of lines; README.md says
// where it comes from.
//
//go:embed tzdata.zi
var Tzdata string
