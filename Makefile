# What people do with this repository. Every target installs what it needs and says what it does;
# `make install-deps` is a part of each and costs nothing when everything is there.
#
# Needs root (or sudo) for apt, for templates and for the tests that start sandboxes. Without root,
# tests that need it say "SKIP:" and are counted at the end.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# One target directory and one profile for lint and test, so that CI compiles dependencies once.
CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET_DIR)/release/crownest

.PHONY: help build demo serve test bench soak fuzz lint install-deps clean

help: ## This list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

install-deps: ## Install missing packages, the Rust toolchain and .venv.
	@scripts/install-deps.sh

build: install-deps ## Release binary, and the templates that sandboxes start from.
	@echo "== build: release binary"
	@scripts/with-rust.sh $(CARGO) build --release --locked -p crownest-cli
	@echo "== build: template python-node (about two minutes the first time)"
	@scripts/as-root.sh $(RELEASE) template build python-node
	@echo "== built $(RELEASE); next: make demo, or make serve"

demo: build ## Show, against a server of its own, what it does.
	@scripts/as-root.sh env CROWNEST_BIN="$(abspath $(RELEASE))" demo/run.sh

serve: build ## Run a server on this machine.
	@scripts/as-root.sh $(RELEASE) serve

test: install-deps ## All tests: Rust, then Python against the built binary.
	@scripts/test.sh

bench: build ## Measure this machine against the promises of SPECIFICATION.md.
	@scripts/with-rust.sh $(CARGO) build --release --locked -p crownest-bench
	@scripts/as-root.sh $(TARGET_DIR)/release/crownest-bench --binary $(RELEASE) $(BENCH)

# make soak SOAK_MINUTES=60 SOAK="--seed 7 --save soak.json"
SOAK_MINUTES ?= 60
soak: build ## Mixed load with random kills for an hour; ends as it began, or fails.
	@scripts/as-root.sh env CROWNEST_BIN="$(abspath $(RELEASE))" \
		.venv/bin/python tests/soak/soak.py --minutes $(SOAK_MINUTES) $(SOAK)

# make fuzz FUZZ_SECONDS=3600
FUZZ_SECONDS ?= 60
fuzz: install-deps ## Feed hostile bytes to every parser, a minute each; fuzz/README.md.
	@scripts/fuzz.sh $(FUZZ_SECONDS)

lint: install-deps ## Format, clippy, licences and advisories, scripts.
	@scripts/lint.sh

clean: ## Remove what was built here (templates stay: crownest template rm).
	@rm -rf $(TARGET_DIR) .venv
	@echo "== removed $(TARGET_DIR) and .venv"
