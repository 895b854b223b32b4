//go:build !linux

package store

// networkFS names the network file system that dir lies on, or "". It is known
// on Linux only.
func networkFS(string) string { return "" }
