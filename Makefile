# What a person or CI runs. `make test` is all that a new machine with Rust needs.

EXAMPLES = quotas map_task operator fencing attributes
PRIORITY = cargo run --quiet --example workflow_priority --
LOG = examples/data/NASA-iPSC-1993-3.1-cln.swf.gz
SERVERS = redis-6.2 redis redis-8.2 valkey-9.1

FLYTEIDL = .servers/flyteidl

# How the replay and the quick benchmark are built: `dev` is slower to run and there already after `make test`.
PROFILE = release

# Tests wait for servers more than they compute.
export RUST_TEST_THREADS ?= 10

.PHONY: test flyteidl chaos test-servers model examples replay lint bench bench-quick package

# Installs redis-server if there is none, and runs every test.
test:
	server=$$(tests/servers.sh redis) && TOKENPOOL_TEST_SERVER=$$server cargo test --workspace

# Ten minutes of what `make test` does for 15 seconds: processes, faults and a judge. On four topologies at a time;
# CHAOS_TOPOLOGY=single, sentinels, protected or cluster is one of them alone.
# CHAOS_SEED=N repeats the choices of a run.
chaos:
	server=$$(tests/servers.sh redis) && TOKENPOOL_TEST_SERVER=$$server CHAOS_SECONDS=$${CHAOS_SECONDS:-600} \
		cargo test --workspace --test chaos

# The tests of the library on every server it is meant for.
test-servers:
	for name in $(SERVERS); do \
		server=$$(tests/servers.sh $$name) || exit 1; \
		$$server --version; \
		TOKENPOOL_TEST_SERVER=$$server cargo test --workspace --test tokenpool || exit 1; \
	done

# Attributes as bytes, also against Flyte's own library in Python.
flyteidl:
	python3 -m venv $(FLYTEIDL)
	$(FLYTEIDL)/bin/python -m pip install --quiet --disable-pip-version-check flyteidl==1.16.8
	cargo test --workspace --features tokenpool/flyteidl --lib matchable
	TOKENPOOL_FLYTEIDL_PYTHON=$(CURDIR)/$(FLYTEIDL)/bin/python \
		cargo test --workspace --features tokenpool/flyteidl --test flyteidl -- --include-ignored

# The model of the protocol, further than `make test` looks; one order after the other, because each takes gigabytes.
# ORDER=fifo, priority or fair is one of them alone.
model:
	cargo test --release --package tokenpool --no-default-features --lib $(ORDER:%=%_)in_depth -- \
		--ignored --nocapture --test-threads 1

examples:
	for name in $(EXAMPLES); do cargo run --quiet --example $$name || exit 1; done
	tests/with_server.sh sh -ec '\
		$(PRIORITY) update workflow-priority --attrFile cli/examples/workflow_priority.yaml --force; \
		$(PRIORITY) get workflow-priority -p billing -d production app.reports.weekly; \
		$(PRIORITY) get workflow-priority'

# The main job, on the embedded default and on a server.
replay:
	cargo run --profile $(PROFILE) -- replay $(LOG)
	tests/with_server.sh cargo run --profile $(PROFILE) -- replay $(LOG) --replicas 8

# As CI wants them: formatting, lints with every feature set, documentation.
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings
	cargo clippy --package tokenpool --all-targets --no-default-features -- --deny warnings
	cargo clippy --package tokenpool --all-targets --all-features -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --all-features

# Prints the table of figures and keeps it as benches/RESULTS.md.
bench:
	server=$$(tests/servers.sh redis) && TOKENPOOL_TEST_SERVER=$$server cargo bench --bench quotas -- --strict

# The same at the smallest sizes, to see that it runs; keeps nothing.
bench-quick:
	server=$$(tests/servers.sh redis) && \
		TOKENPOOL_TEST_SERVER=$$server cargo bench --profile $(PROFILE) --bench quotas -- --quick

# What would be published, built as published.
package:
	cargo package --package tokenpool --allow-dirty
