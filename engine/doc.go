// Package engine is segno's untyped state machine: states are strings, data is
// bytes, and every change of a run is handed to a Journal before the program
// acts on it. It imports only the standard library.
//
// [Run.Drive] is the whole of it: settle what the current visit asks for,
// commit the change, look again. Running and resuming are the same call.
//
// The package carries no compatibility promise; programs use package segno.
package engine
