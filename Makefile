# The front door. Behind it is cargo; docs/development.md says what each target does.
# Everything is built in the release profile and for the whole workspace: a second profile, or a
# package built alone with other features, would compile the dependencies once more.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
ifdef CARGO_TARGET_DIR
export CARGO_TARGET_DIR := $(TARGET_DIR)
endif
export FERMATA_TOOLS_DIR ?= $(TARGET_DIR)/tools
FERMATA := $(TARGET_DIR)/release/fermata

PYTHON ?= python3
FERMATA_BENCH := $(TARGET_DIR)/release/fermata-bench
# Names the one server that all programs of a target use, whatever else is on PATH.
WITH_SERVER = FERMATA_NATS_SERVER="$$($(PYTHON) scripts/install_tools.py --nats-server)"; export FERMATA_NATS_SERVER;

# How long `make fault` may go on, in seconds; `make ci` takes the short way.
FAULT_SECONDS ?= 900
FAULT_SECONDS_CI ?= 60
# What `make bench` runs: cases, or all of them, and arguments.
BENCH ?= all
BENCH_ARGUMENTS ?=
# An older `fermata-bench` that `make bench-compare` measures beside this one.
BEFORE ?=
# Mutants to try, all if empty.
MUTANTS ?=
# What to fuzz, everything if empty, and for how long each, in seconds.
FUZZ ?=
FUZZ_SECONDS ?= 600

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: tools
tools: ## get nats-server (unless there is one) and a Python for the tests, into the target folder
	@$(PYTHON) scripts/install_tools.py

.PHONY: build
build: ## build everything
	cargo build --release --workspace --locked

.PHONY: demo
demo: tools build ## run the demonstration: a broker, the engine, a plugin, and some 200 events
	@$(WITH_SERVER) $(FERMATA) demo

.PHONY: test
test: tools build ## run the tests, those against a real nats-server included
	@$(WITH_SERVER) $(PYTHON) scripts/run_tests.py test

.PHONY: fault
fault: tools build ## run the long fault tests: kills, pauses and garbage against a real nats-server
	@$(WITH_SERVER) FAULT_SECONDS=$(FAULT_SECONDS) $(PYTHON) scripts/run_tests.py fault \
		--binary fermata-tests::fault

.PHONY: mutants
mutants: tools ## break the rules one by one and check that the tests notice
	@$(WITH_SERVER) $(PYTHON) scripts/mutants $(MUTANTS)

.PHONY: fuzz
fuzz: ## fuzz what reads bytes from outside; needs a nightly compiler and cargo-fuzz
	@$(PYTHON) scripts/fuzz --seconds $(FUZZ_SECONDS) $(FUZZ)

.PHONY: bench
bench: tools build ## measure; BENCH="runs plan" picks cases, BENCH_ARGUMENTS="--json" is handed on
	@$(WITH_SERVER) $(FERMATA_BENCH) $(BENCH) $(BENCH_ARGUMENTS)

.PHONY: bench-compare
bench-compare: tools build ## measure BENCH in turns with an older fermata-bench, BEFORE=path; 1 if it is worse
	@test -n "$(BEFORE)" || { echo "give BEFORE=path-of-an-older-fermata-bench" >&2; exit 2; }
	@$(WITH_SERVER) $(PYTHON) scripts/compare_bench.py --before "$(BEFORE)" --after $(FERMATA_BENCH) \
		$(BENCH) $(BENCH_ARGUMENTS)

.PHONY: bench-smoke
bench-smoke: tools build ## run each benchmark small, to see that it works
	@$(WITH_SERVER) $(FERMATA_BENCH) all --smoke --json

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all

.PHONY: lint
lint: ## check format, clippy and documentation, warnings denied
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --locked -- -D warnings
	cargo clippy --release --workspace --test fault --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --locked
	if command -v cargo-deny >/dev/null; then cargo deny --locked check bans licenses sources; fi

.PHONY: dependencies
dependencies: ## check which crate depends on which, and that every mutant still applies
	$(PYTHON) scripts/check_dependencies.py
	@if $(PYTHON) -c "import tomllib" 2>/dev/null; then $(PYTHON) scripts/mutants --check; \
	else echo "mutants: NOT CHECKED, needs Python 3.11"; fi

.PHONY: scripts-check
scripts-check: ## check that the scripts judge as they should
	$(PYTHON) scripts/check_dependencies.py --self-test
	$(PYTHON) scripts/compare_bench.py --self-test
	$(PYTHON) scripts/run_tests.py --self-test

.PHONY: schemas
schemas: build ## write the published schemas anew
	$(FERMATA) schema --out schemas

.PHONY: schemas-check
schemas-check: build ## check that the published schemas are those of the code
	rm -rf $(TARGET_DIR)/schemas-check
	$(FERMATA) schema --out $(TARGET_DIR)/schemas-check
	diff -ru schemas $(TARGET_DIR)/schemas-check || { echo "schemas/ is behind the code; run \`make schemas\`" >&2; exit 1; }

.PHONY: ci
ci: ## everything that must hold before a change goes in
	$(MAKE) lint
	$(MAKE) scripts-check
	$(MAKE) dependencies
	$(MAKE) schemas-check
	$(MAKE) test
	$(MAKE) fault FAULT_SECONDS=$(FAULT_SECONDS_CI)
	$(MAKE) bench-smoke
	@echo "ci: all passed"
	@$(PYTHON) scripts/run_tests.py --report
