// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// These tests keep the Markdown files of the repository true: their links lead
// somewhere, their Go code is that of files which are compiled and run, their examples
// exist, and the messages that they explain are those of the source.

const root = ".."

// files returns the repository's files with that ending, by their slash-separated path.
func files(t *testing.T, ending string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ending) {
			return nil
		}
		text, err := os.ReadFile(path)
		found[filepath.ToSlash(path)] = string(text)
		return err
	}))
	require.NotEmpty(t, found)
	return found
}

// prose is a page without its code.
func prose(page string) string {
	page = regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(page, "")
	return regexp.MustCompile("`[^`\n]*`").ReplaceAllString(page, "code")
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noWord  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are those that GitHub gives the headings of a page.
func anchors(page string) []string {
	var found []string
	page = regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(page, "")
	for _, h := range heading.FindAllStringSubmatch(page, -1) {
		text := link.ReplaceAllString(h[1], "]")
		found = append(found, strings.ReplaceAll(noWord.ReplaceAllString(strings.ToLower(text), ""), " ", "-"))
	}
	return found
}

func TestLinksLeadSomewhere(t *testing.T) {
	pages := files(t, ".md")
	for name, page := range pages {
		for _, l := range link.FindAllStringSubmatch(prose(page), -1) {
			target, anchor, _ := strings.Cut(l[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			path := name
			if target != "" {
				path = filepath.ToSlash(filepath.Join(filepath.Dir(name), target))
			}
			_, err := os.Stat(path)
			require.NoErrorf(t, err, "%s links to %s", name, l[1])
			if anchor != "" && strings.HasSuffix(path, ".md") {
				require.Containsf(t, anchors(pages[path]), anchor, "%s links to %s, but no heading there has that anchor", name, l[1])
			}
		}
	}
}

func TestEachPageIsInTheIndex(t *testing.T) {
	index, err := os.ReadFile("README.md")
	require.NoError(t, err)
	pages, err := filepath.Glob("*.md")
	require.NoError(t, err)
	for _, page := range pages {
		if page != "README.md" {
			require.Contains(t, string(index), "("+page+")")
		}
	}
}

// flat is a text with its lines trimmed, without the empty ones, and with imports as they
// stand in a group.
func flat(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimPrefix(strings.TrimSpace(line), "import "); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// A block of Go is a piece of a Go file, line by line, and a block of output that of an
// example.
func TestCodeAndOutputInThePagesAreThoseOfGoFiles(t *testing.T) {
	sources := map[string][]string{}
	for _, source := range files(t, ".go") {
		sources["go"] = append(sources["go"], flat(source))
		comments := regexp.MustCompile(`(?m)^\s*//`).ReplaceAllString(source, "")
		sources["output"] = append(sources["output"], flat(comments))
	}
	for page, text := range files(t, ".md") {
		for _, block := range regexp.MustCompile("(?ms)^```(go|output)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
			found := false
			for _, source := range sources[block[1]] {
				found = found || strings.Contains("\n"+source, "\n"+flat(block[2]))
			}
			assert.Truef(t, found, "%s: this block is in no Go file of the repository, line by line:\n%s", page, block[2])
		}
	}
}

// examples are those in files of that folder.
func examples(t *testing.T, folder string) map[string]bool {
	declared := map[string]bool{}
	for name, source := range files(t, "_test.go") {
		if !strings.HasPrefix(name, folder) {
			continue
		}
		for _, f := range regexp.MustCompile(`(?m)^func (Example\w*)\(\)`).FindAllStringSubmatch(source, -1) {
			declared[f[1]] = true
		}
	}
	return declared
}

func TestExamplesThatThePagesNameExist(t *testing.T) {
	declared := examples(t, root)
	for name, page := range files(t, ".md") {
		for _, e := range regexp.MustCompile("`(Example\\w*)`").FindAllStringSubmatch(page, -1) {
			require.Truef(t, declared[e[1]], "%s names %s, which is no example", name, e[1])
		}
	}
}

func TestEachExampleIsInTheIndexOfExamples(t *testing.T) {
	page, err := os.ReadFile("examples.md")
	require.NoError(t, err)
	for example := range examples(t, root) {
		assert.Contains(t, string(page), "`"+example+"`")
	}
}

// What a user of the package calls, implements or returns has an example, but for what
// another one shows.
func TestWhatAUserNeedsHasAnExample(t *testing.T) {
	shownBy := map[string]string{
		"Caller": "Example", "Info": "ExampleInfoFrom", "Memory": "ExampleRememberingCaller", "Option": "ExampleBatchSize",
		"FuncCaller": "ExampleFunc", "RegisterFunc": "ExampleFunc", "BatchAsyncDoFn": "ExampleNew",
		"RegisterFlat": "ExampleFlatParDo", "RegisterKV": "ExampleParDoKV", "RegisterFlatKV": "ExampleFlatParDoKV",
		"Emit": "", "EmitKV": "", // of no use to users
	}
	declared := examples(t, "../batchasync/")
	for name, source := range files(t, ".go") {
		if !regexp.MustCompile(`^\.\./batchasync/[^/]*\.go$`).MatchString(name) || strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, d := range regexp.MustCompile(`(?m)^(?:func|type) ([A-Z]\w*)`).FindAllStringSubmatch(source, -1) {
			example, ok := shownBy[d[1]]
			if !ok {
				example = "Example" + d[1]
			}
			if example != "" {
				assert.Truef(t, declared[example], "%s of %s has no %s", d[1], name, example)
			}
		}
	}
}

// A message in troubleshooting.md is the code that a row of a table begins with; … in it
// stands for what differs from case to case.
func messages(t *testing.T) (parts [][]string) {
	page, err := os.ReadFile("troubleshooting.md")
	require.NoError(t, err)
	text, _, found := strings.Cut(string(page), "\n## Symptoms")
	require.True(t, found)
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(text, -1) {
		if !strings.HasPrefix(m[1], "panic: deadlock") { // Go's
			parts = append(parts, strings.Split(m[1], "…"))
		}
	}
	require.NotEmpty(t, parts)
	return parts
}

func TestMessagesInTroubleshootingAreThoseOfTheSource(t *testing.T) {
	var lines []string
	for name, source := range files(t, ".go") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		for line := range strings.Lines(source) {
			lines = append(lines, strings.ReplaceAll(line, `\"`, `"`))
		}
	}
	for _, m := range messages(t) {
		found := false
		for _, line := range lines {
			found = found || has(line, m)
		}
		assert.Truef(t, found, "no line of the source has the message %q", strings.Join(m, "…"))
	}
}

// Each sentence that package batchasync says to its user is explained.
func TestMessagesOfThePackageAreInTroubleshooting(t *testing.T) {
	says := regexp.MustCompile(`(?:Errorf|New|Sprintf|refuse|Warnf|Infof|panic)\([^"\n]*"((?:[^"\\\n]|\\.){20,})"|advice :?= "([^"\n]+)"|s\.String\(\) \+ "([^"\n]+)"`)
	signature := regexp.MustCompile(`^(Cacheable|Remember)\(`)
	explained := messages(t)
	for name, source := range files(t, ".go") {
		if !strings.HasPrefix(name, "../batchasync/") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, m := range says.FindAllStringSubmatch(source, -1) {
			text := m[1] + m[2] + m[3]
			if !strings.Contains(text, " ") || signature.MatchString(text) {
				continue
			}
			found := false
			for _, e := range explained {
				found = found || has(text, e)
			}
			assert.Truef(t, found, "troubleshooting.md does not explain %q of %s", text, name)
		}
	}
}

// has reports whether a line has all of the parts, in their order.
func has(line string, parts []string) bool {
	for _, part := range parts {
		_, rest, found := strings.Cut(line, part)
		if !found {
			return false
		}
		line = rest
	}
	return true
}
