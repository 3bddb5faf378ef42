# Copyright 2026 The beam-batchasync authors
# SPDX-License-Identifier: Apache-2.0

# bash, and pipefail, for every recipe: /bin/sh has neither [[ nor read -d.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The linters are pinned in a module of their own, so that who imports this
# package doesn't get them as dependencies. `go tool` builds them once and takes
# them from the build cache afterwards.
TOOL := go tool -modfile=tools/go.mod

# make bench BENCH=Ring COUNT=1
BENCH ?= .
COUNT ?= 8

# What every Go file begins with; `make headers` compares, an empty line after it
# included: without that line Go takes the licence for the package's doc comment.
define HEADER
// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0
endef
export HEADER

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: services
services: ## install the servers that tests start: PostgreSQL, MariaDB, Redis
	bash testing/services.sh

.PHONY: test
test: ## run every test (go test ./...)
	go test ./...

.PHONY: race
race: ## run the package's tests under the race detector
	go test -race ./batchasync/... ./testing/...

.PHONY: test-flink
test-flink: ## run the conformance suite on Flink, its faults included (needs java, mvn)
	go test -timeout=15m ./runners/... -runner=flink

.PHONY: vet
vet: ## run go vet
	go vet ./...

.PHONY: lint
lint: format headers staticcheck errcheck ## run the four checks below, the fastest first

.PHONY: format
format: ## list the files that gofmt would change; fail if there are any
	@files=$$(gofmt -l .); \
	if [[ -n "$$files" ]]; then \
		sed 's/$$/: not gofmt-ed/' <<<"$$files" >&2; \
		exit 1; \
	fi

.PHONY: headers
headers: ## list the Go files without the licence header; fail if there are any
	@missing=0; \
	while IFS= read -r -d '' file; do \
		if [[ "$$(head -n 3 "$$file"; echo end)" != "$$HEADER"$$'\n\nend' ]]; then \
			echo "$$file: doesn't begin with the licence header and an empty line" >&2; \
			missing=1; \
		fi; \
	done < <(find . -name '*.go' -type f -not -path './.*' -print0); \
	if ((missing)); then \
		printf 'the header is:\n%s\n' "$$HEADER" >&2; \
		exit 1; \
	fi

.PHONY: staticcheck
staticcheck: ## run staticcheck; staticcheck.conf says which checks and why
	$(TOOL) staticcheck ./...
	cd testing/bench && go tool -modfile=../../tools/go.mod staticcheck ./...

.PHONY: errcheck
errcheck: ## find errors that nobody looks at, in tests too
	$(TOOL) errcheck ./...
	cd testing/bench && go tool -modfile=../../tools/go.mod errcheck ./...

.PHONY: bench
bench: ## run the benchmarks, in a form for benchstat (BENCH=pattern, COUNT=8)
	go test -run='^$$' -bench='$(BENCH)' -benchmem -count=$(COUNT) ./...

.PHONY: compare
compare: ## compare with what one would do without batchasync: table and charts, five minutes
	cd testing/bench && go run . -svg ../../docs

.PHONY: compare-smoke
compare-smoke: ## the same in seconds, for its exact columns alone
	cd testing/bench && go vet . && go run . -smoke

.PHONY: flights
flights: ## run the main example
	go run ./examples/flights

.PHONY: ci
ci: ## run all that CI runs
	bash .ci/run
