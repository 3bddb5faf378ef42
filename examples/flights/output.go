// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// An output is a file that appears when the job has ended well: until then its
// lines are in another file beside it.
type output struct {
	path   string // where it will be
	staged string // where the pipeline writes
}

// newOutput proves that the file can be written, before the job begins.
func newOutput(path string) (_ *output, err error) {
	if strings.Contains(path, "://") {
		return nil, errors.New("is not a local file")
	}
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("is a folder")
	case !info.Mode().IsRegular():
		return &output{path: path, staged: path}, nil // /dev/stdout, a pipe
	default:
		// A rename would go over a file that is protected, and over a link.
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, err
		}
	}
	o := &output{path: path, staged: fmt.Sprintf("%s.%d.part", path, os.Getpid())}
	// textio writes no file if there are no lines; so it is here already.
	return o, os.WriteFile(o.staged, nil, 0o666)
}

func (o *output) commit() error {
	if o.staged == o.path {
		return nil
	}
	return os.Rename(o.staged, o.path)
}

// discard removes what has been written, unless it is committed.
func (o *output) discard() error {
	if o.staged == o.path {
		return nil
	}
	if err := os.Remove(o.staged); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
