// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package jobserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The newest Flink runner of Beam whose artifacts, unlike the shaded job-server
// jars, resolve with all that they need; and a logger, without which the server
// is silent.
const (
	runner        = "beam-runners-flink-1.16"
	runnerVersion = "2.50.0"
)

const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>beam-batchasync</groupId>
  <artifactId>flink-job-server</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.beam</groupId>
      <artifactId>` + runner + `</artifactId>
      <version>` + runnerVersion + `</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.30</version>
    </dependency>
  </dependencies>
</project>
`

// fetch returns the class path of the jars, and fetches them if they are not in
// the cache.
func fetch(ctx context.Context, c Config) (classPath string, err error) {
	cache := c.Cache
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no folder for the job server's jars (%w); name a cache folder, or the job server's class path", err)
		}
		cache = filepath.Join(user, "beam-batchasync")
	}
	jars := filepath.Join(cache, runner+"-"+runnerVersion)
	if _, err := os.Stat(jars); err == nil {
		return filepath.Join(jars, "*"), nil
	}

	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", fmt.Errorf("no mvn in PATH (%w), and the Flink job server's jars are not in %s yet; install Apache Maven, or name the job server's class path or endpoint", err, jars)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	// What is fetched gets its name when it is whole: an interrupted fetch
	// leaves no half of it, and of two at once the first one counts.
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := os.WriteFile(filepath.Join(tmp, "pom.xml"), []byte(pom), 0o644); err != nil {
		return "", err
	}
	if c.Notice != nil {
		c.Notice("Maven fetches the Flink job server, 150 MB, into %s; this happens once, and takes a minute or more", jars)
	}
	fetched := filepath.Join(tmp, "jars")
	cmd := exec.CommandContext(ctx, mvn, "--batch-mode", "--no-transfer-progress",
		"dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+fetched)
	cmd.Dir = tmp
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("mvn could not fetch %s:%s (%w); correct Maven's settings, or name the job server's class path or endpoint; the end of its output:\n%s",
			runner, runnerVersion, err, tail(output.String(), 20))
	}
	if err := os.Rename(fetched, jars); err != nil {
		if _, other := os.Stat(jars); other != nil {
			return "", err
		}
	}
	return filepath.Join(jars, "*"), nil
}
