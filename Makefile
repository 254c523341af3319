# Every command of the project; `make help` lists them. Nothing here needs root but test-root, and nothing needs a
# network once `cargo fetch` has run.

CARGO ?= cargo
# The lock file is part of what was reviewed: no command may change it.
CARGO_OPTIONS ?= --locked

.PHONY: help demo smokes load planted-breaks test batteries test-kill test-kill-deliveries test-faults test-root soak fuzz-stable bench build limits clean \
	install dist dist-check

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: ## Build, run, kill -9 and recover the daemon before your eyes (about a minute, nothing is left behind)
	./scripts/demo.sh

test: ## Everything that CI runs and that needs no root: format, lints, all tests
	$(CARGO) fmt --check
	$(CARGO) clippy $(CARGO_OPTIONS) --all-targets -- --deny warnings
	for script in scripts/*.sh scripts/e2e/*.sh .ci/run; do bash -n "$$script" || exit 1; done
	./scripts/run-tests.sh $(CARGO) test $(CARGO_OPTIONS) --no-fail-fast

smokes: ## Every smoke of the runbooks against the debug binary, offline (python3; nginx and openssl where installed)
	$(CARGO) build $(CARGO_OPTIONS)
	@for smoke in ops_reverse_proxy_config_smoke ops_backup_restore_smoke ops_slo_probe_smoke ops_runbook_live_smoke \
		ops_tls_proxy_live_smoke browser_origin_smoke run_mcp_local_true_binary; do \
		echo "== $$smoke"; \
		env -u OPENAI_API_KEY -u KHEISH_OPENAI_API_KEY KHEISH_E2E_SKIP_BUILD=1 \
			KHEISH_BIN="$${CARGO_TARGET_DIR:-target}/debug/kheish-daemon" bash scripts/e2e/$$smoke.sh || exit 1; \
	done
	@echo "== session_load_50_clients, small"
	@KHEISH_BIN="$${CARGO_TARGET_DIR:-target}/debug/kheish-daemon" bash scripts/e2e/session_load_50_clients.sh --small
	@echo "== planted_breaks, small"
	@KHEISH_BIN="$${CARGO_TARGET_DIR:-target}/debug/kheish-daemon" python3 scripts/e2e/planted_breaks.py --small

load: ## 50 clients with 4 sessions each, streams and pollers against the release binary (`make smokes` has a small size)
	$(CARGO) build $(CARGO_OPTIONS) --release
	KHEISH_BIN="$${CARGO_TARGET_DIR:-target}/release/kheish-daemon" bash scripts/e2e/session_load_50_clients.sh

planted-breaks: ## One thing broken at a time: each smoke must notice (`make smokes` has a small size)
	$(CARGO) build $(CARGO_OPTIONS)
	KHEISH_BIN="$${CARGO_TARGET_DIR:-target}/debug/kheish-daemon" python3 scripts/e2e/planted_breaks.py

test-kill: ## 200 kills with SIGKILL under load, also during start (`make test` has 25 of them)
	KHEISH_KILL_ROUNDS=200 $(CARGO) test $(CARGO_OPTIONS) --test daemon_kill

test-kill-deliveries: ## 1,000 kills of daemon, sidecar and receiver amid deliveries, and 300 of the daemon (`make test` has 9 and 6)
	KHEISH_DELIVERY_KILLS=300 $(CARGO) test $(CARGO_OPTIONS) --test delivery_daemon a_killed_daemon
	KHEISH_DELIVERY_KILLS=1000 $(CARGO) test $(CARGO_OPTIONS) --test delivery_kills

batteries: ## The batteries of the agent engine and of restarts in full (`make test` has a small size of each)
	KHEISH_BATTERIES=1 ./scripts/run-tests.sh $(CARGO) test $(CARGO_OPTIONS) --test engine_kill --test engine_tools \
		--test agents_engine --test tasks_orphans
	KHEISH_RESTARTS=50 $(CARGO) test $(CARGO_OPTIONS) --test supervisor_daemon no_connection_is_refused

test-faults: ## Every disk call of the daemon fails once and for good, by strace (`make test` has a few of them)
	KHEISH_FAULTS=full ./scripts/run-tests.sh $(CARGO) test $(CARGO_OPTIONS) --test daemon_faults

test-root: ## The tests that mount small file systems; run as root, skips are counted and printed
	@[ "$$(id -u)" -eq 0 ] || { echo "test-root: needs root; next: sudo make test-root" >&2; exit 1; }
	./scripts/run-tests.sh $(CARGO) test $(CARGO_OPTIONS) --test 'root_*' -- --ignored --test-threads 1

soak: ## Ten minutes each of a healthy idle and a healthy busy daemon under `slo` and `doctor` without a false alarm (`make test` has a minute)
	KHEISH_SOAK_S=600 $(CARGO) test $(CARGO_OPTIONS) --test slo_soak -- --nocapture
	KHEISH_DOCTOR_SOAK_S=$${KHEISH_DOCTOR_SOAK_S:-300} $(CARGO) test $(CARGO_OPTIONS) --test doctor_daemon a_healthy_daemon

fuzz-stable: ## 10 million mutated streams for each provider's parser (`make test` has 100,000); KHEISH_FUZZ_INPUTS changes it
	KHEISH_FUZZ_INPUTS=$${KHEISH_FUZZ_INPUTS:-10000000} $(CARGO) test $(CARGO_OPTIONS) --release --test provider_fuzz

bench: ## Measure accepts, streams, start-up and memory, beside Redis and PostgreSQL where installed
	$(CARGO) build $(CARGO_OPTIONS) --release
	$(CARGO) bench $(CARGO_OPTIONS) --bench bench

build: ## The release binary: target/release/kheish-daemon
	$(CARGO) build $(CARGO_OPTIONS) --release

# Where `make install` puts things; packagers set DESTDIR, and KHEISH_BINARY to install a binary of a release.
PREFIX ?= /usr/local
DESTDIR ?=
KHEISH_BINARY ?= $${CARGO_TARGET_DIR:-target}/release/kheish-daemon

install: ## Install the release binary, manual pages, completions and systemd units (PREFIX, DESTDIR); builds nothing
	./scripts/install.sh "$(KHEISH_BINARY)" "$(PREFIX)" "$(DESTDIR)"

dist: ## A release in target/dist: vendored sources, binary, bill of materials, checksums (KHEISH_DIST_SIGNING_KEY signs)
	./scripts/dist.sh

dist-check: ## The same, built twice in two directories and compared byte by byte
	./scripts/dist.sh --check

limits: ## Refresh the tables of docs/limits.md from src/limits.rs
	KHEISH_TIDY_WRITE=1 $(CARGO) test $(CARGO_OPTIONS) --test tidy every_bound_is_in_the_docs

clean: ## Remove everything that was built
	$(CARGO) clean
