# Everything that one types in this project. `make help` lists it.
#
# Tools are pinned and built from source once, into tests/tools/bin, which comes first on PATH below: what happens to
# be installed on a machine decides nothing.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

TOOLS := tests/tools/bin
export PATH := $(CURDIR)/$(TOOLS):$(PATH)

CARGO_DENY := 0.20.2

# A lock file that does not fit Cargo.toml is an error, never quietly mended.
CARGO_LOCKED := --locked
# Registries have bad minutes.
export CARGO_NET_RETRY ?= 5

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target words; do \
		printf '  make %-8s %s\n' "$$target" "$$words"; \
	done

.PHONY: dev
dev: system ## Run the whole world on this machine: Redis, an Azure emulator, the broker (STATE_DIR=DIR: its state there)
	cargo run $(CARGO_LOCKED) -- dev $(if $(STATE_DIR),--state-dir "$(STATE_DIR)")

.PHONY: test
test: system $(TOOLS)/grpcurl ## Run all tests
	cargo test $(CARGO_LOCKED) --workspace --all-features

# Nothing is asserted by `make test`, because what else a machine does would decide it. BENCH_REPORT_ONLY=1 leaves a
# missed limit at being told.
.PHONY: bench
bench: system ## Measure speed and memory beside their ceilings (about 15 minutes; nothing else may run meanwhile)
	cargo bench $(CARGO_LOCKED) --bench evaluate
	cargo bench $(CARGO_LOCKED) --bench check_access

# The cheap checks come first, so that a slip shows before the compiler has warmed up. cargo-deny reads the crates'
# licences and offline it downloads none, so they are fetched before. The second clippy run is for the release image,
# which is built without dev mode.
.PHONY: lint
lint: system tools ## Check format, lints, dependencies, contract and layering
	cargo fmt --all --check
	buf lint
	buf format --diff --exit-code
	cargo fetch $(CARGO_LOCKED)
	cargo deny --offline check --deny warnings bans licenses sources
	cargo clippy $(CARGO_LOCKED) --workspace --all-targets --all-features -- --deny warnings
	cargo clippy $(CARGO_LOCKED) --package aks-access-broker --no-default-features -- --deny warnings
	cargo test $(CARGO_LOCKED) --test architecture --test contract

.PHONY: audit
audit: $(TOOLS)/cargo-deny ## Check dependencies against the advisory database (needs the network)
	cargo deny check --deny warnings advisories

# Whoever changes the contract runs this against what callers have.
.PHONY: breaking
breaking: $(TOOLS)/buf ## Check that the contract breaks no caller of branch AGAINST (default: main)
	buf breaking --against '.git#branch=$(or $(AGAINST),main)'

.PHONY: fmt
fmt: $(TOOLS)/buf ## Format code and contract
	cargo fmt --all
	buf format --write

# Pages that are made from code. A test fails where one is not what the code says.
.PHONY: pages
pages: ## Write docs/azure-errors.md anew from its table
	WRITE_PAGES=1 cargo test $(CARGO_LOCKED) --lib --quiet the_page_of_azure_s_errors_is_the_table

.PHONY: build
build: system ## Build the release binary, without dev mode
	cargo build $(CARGO_LOCKED) --release --no-default-features --package aks-access-broker

.PHONY: tools
tools: $(TOOLS)/buf $(TOOLS)/cargo-deny $(TOOLS)/grpcurl ## Build the pinned tools that lint and tests use (once, about 5 minutes)

.PHONY: system
system:
	@tests/tools/system.sh

# A tool is as old as what pins it. Go and Cargo leave an unchanged binary's time alone, so it is touched.
$(TOOLS)/grpcurl: tests/tools/grpcurl/go.mod tests/tools/grpcurl/go.sum
	@echo '==> grpcurl: building, about 1 minute'
	@tests/tools/go.sh build -C tests/tools/grpcurl -o ../bin/grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl
	@touch $@

$(TOOLS)/buf: tests/tools/buf/go.mod tests/tools/buf/go.sum
	@echo '==> buf: building, about 2 minutes'
	@tests/tools/go.sh build -C tests/tools/buf -o ../bin/buf github.com/bufbuild/buf/cmd/buf
	@touch $@

# The version is in the stamp's name: raising it above builds anew.
$(TOOLS)/cargo-deny: $(TOOLS)/.cargo-deny-$(CARGO_DENY)
	@touch $@

$(TOOLS)/.cargo-deny-$(CARGO_DENY): | system
	@echo '==> cargo-deny: building, about 3 minutes'
	@cargo install --quiet --locked --root tests/tools cargo-deny --version $(CARGO_DENY)
	@touch $@
