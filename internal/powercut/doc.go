// Package powercut stands between SQLite and the files of a folder, for tests:
// it records every write and sync that reaches the file system, and makes from
// that what the disk might hold if the power were cut; and it lets calls fail.
//
// What it knows are SQLite's calls, not the file system or the disk below: it
// takes a sync that has returned for kept, a sector of 512 bytes for whole, and
// a folder's entries for kept in their order. Before the sync anything may
// happen to a write.
package powercut
