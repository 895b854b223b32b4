// Package migrations holds segno's schema as embedded goose migrations.
package migrations

import "embed"

// FS holds the SQL files, to be applied in order.
//
//go:embed *.sql
var FS embed.FS
