# Everything that is done with this repository. `make run` is the way in.

CARGO ?= cargo
SHELL := /bin/bash
# The properties try the same values every time, so that what was green stays green; `make soak` tries new ones.
export PROPTEST_RNG_SEED ?= 1
# The integration tests wait most of the time, for leases to run out and processes to start: more at once than there are cores.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))

.DEFAULT_GOAL := help
.PHONY: help run postgresql test test-matrix check it sim bench bench-peers soak fuzz docs ci

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: postgresql ## Build, and run everything in one process with a private PostgreSQL
	$(CARGO) build --release --locked
	target/release/walclock dev

postgresql: ## Install PostgreSQL's programs where they are missing
	@.ci/postgresql

check: ## Format, lint, the layout's rules, unit tests
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path benches/peers/Cargo.toml
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) test --locked --test tidy
	$(CARGO) test --locked --lib

test: postgresql ## All tests, on a private PostgreSQL
	@CARGO="$(CARGO)" .ci/tests
	@scratch="$${TMPDIR:-/tmp}/walclock-it"; cat "$$scratch"/*/skipped 2>/dev/null; rm -rf "$$scratch"

test-matrix: ## The integration tests on PostgreSQL 14 to 18, which npm brings; MAJORS="14 18", TESTS=source::
	@.ci/test-matrix

it: postgresql ## The integration tests alone
	$(CARGO) test --locked --test it

sim: ## The simulation; SEED=n replays one seed, SEEDS=n tries so many
	$(CARGO) test --locked --test sim

bench: postgresql ## Ratios against what is measured in the same run; fails where a target is missed, but not with VERDICT=print
	$(CARGO) bench --locked

bench-peers: postgresql ## walclock beside another job runner on the same PostgreSQL, which the package registry brings
	peers="$${CARGO_TARGET_DIR:-target}/peers" && \
	$(CARGO) build --release --locked --manifest-path benches/peers/Cargo.toml --target-dir "$$peers" && \
	PEER="$$(realpath "$$peers")/release/walclock-peer" $(CARGO) bench --locked --bench bench -- peers

soak: postgresql ## Properties with new values, the simulation over very many seeds, the faults for long; SEED=n repeats a load
	env -u PROPTEST_RNG_SEED PROPTEST_CASES=$${CASES:-20000} $(CARGO) test --locked --release --lib
	SEEDS=$${SEEDS:-10000} $(CARGO) test --locked --release --test sim || { \
		echo "Seeds that failed are in $${CARGO_TARGET_DIR:-target}/sim-failed-seeds.txt: make sim SEED=n replays one."; exit 1; }
	SOAK=$${SOAK:-25} $(CARGO) test --locked --release --test it -- chaos:: disk:: bulk:: firing:: ring:: schedules:: \
		--test-threads 2

fuzz: ## Fuzz the decoder and the assembler, a minute each (needs cargo-fuzz and a nightly toolchain)
	cd fuzz && for target in pgoutput assemble; do \
		$(CARGO) +nightly fuzz run $$target -- -max_total_time=$${SECONDS_MAX:-60} || exit 1; done

docs: ## Build the documentation of the code
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

ci: check test docs ## What CI runs
