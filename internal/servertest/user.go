// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// servant is the user that servers run as when the test is root's: PostgreSQL and
// MariaDB refuse to be root.
func servant() (uid, gid int, ok bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return 0, 0, false
	}
	uid, err = strconv.Atoi(nobody.Uid)
	if err != nil {
		return 0, 0, false
	}
	gid, err = strconv.Atoi(nobody.Gid)
	return uid, gid, err == nil
}

// chownAll gives a file, or a folder with all that is in it, to the servant.
func chownAll(root string) error {
	uid, gid, ok := servant()
	if !ok {
		return nil
	}
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}
