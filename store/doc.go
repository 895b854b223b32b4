// Package store keeps segno's runs, flows and journal in one SQLite file.
//
// One goroutine writes, with group commit: whatever is queued while one commit
// is in the disk goes into the next. Readers have connections of their own.
// A [Store] is an engine.Journal; [Store.Update] is what the scheduler writes with.
//
// The package carries no compatibility promise; programs use package segno.
package store
