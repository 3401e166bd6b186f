package main

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// unsafeFileSystems are those on which a store may not lie, by the number that
// statfs gives. Over a network a sync may be answered before anything is safe,
// a lock may not exclude another machine, and a file that is mapped into memory
// may change or vanish; of FUSE nobody can tell.
var unsafeFileSystems = map[uint32]string{
	0x6969:     "NFS",
	0xFF534D42: "CIFS",
	0xFE534D42: "SMB2",
	0x517B:     "SMB",
	0x65735546: "FUSE",
	0x01021997: "9P",
	0x00C36400: "Ceph",
	0x0BD00BD0: "Lustre",
	0x47504653: "GPFS",
	0x19830326: "BeeGFS",
	0x5346414F: "AFS",
	0x6B414653: "AFS",
	0x73757245: "Coda",
	0x564C:     "NCP",
	0x786F4256: "VirtualBox shared folder",
	0xBACBACBC: "VMware shared folder",
}

// checkFileSystem refuses a data directory of which what is durable, locked or
// mapped might not stay so. Below it the store or the blobs may be links to
// elsewhere, and payloads may lie on disks that were added, where another file
// system may be mounted by now.
func (d dataDir) checkFileSystem(kindOf func(path string) (uint32, error)) error {
	added, err := blob.Added(durable.OS, d.path(blobsDir))
	if err != nil {
		return err
	}
	for _, path := range append([]string{string(d), d.path(storeDir), d.path(blobsDir)}, added...) {
		kind, err := kindOf(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if name := unsafeFileSystems[kind]; name != "" {
			return exchange.Fail(exchange.CodeFileSystem, "%s is on %s", path, name)
		}
	}
	return nil
}

// fileSystemOf is the number of a path's file system.
func fileSystemOf(path string) (uint32, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, err
	}
	return uint32(s.Type), nil
}
