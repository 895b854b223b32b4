package store

import "syscall"

// networkFS names the network file system that dir lies on, or "". SQLite's
// locks cannot be trusted there.
func networkFS(dir string) string {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return ""
	}
	switch uint32(st.Type) { // magic numbers of statfs(2)
	case 0x6969:
		return "NFS"
	case 0x517B, 0xFE534D42, 0xFF534D42:
		return "SMB"
	case 0x00C36400:
		return "CephFS"
	case 0x5346414F:
		return "AFS"
	case 0x01021997:
		return "9p"
	}
	return ""
}
