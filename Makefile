# Every target does its own set-up in .venv: Python 3.11 or newer, make and git are all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell git ls-files journal forwarder schemas) pyproject.toml README.md LICENSE

.PHONY: demo test lint units deb boot boot-slice oldest machine breakdown bench bench-long bench-slice fleet fleet-kills fleet-rate postgresql campaign campaign-slice tamper torture \
	torture-slice lock clean

demo: $(VENV)/installed
	@$(BIN)/omneo-forwarder demo

test: $(VENV)/installed
	$(BIN)/pytest -n 2 --dist loadfile tests

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What systemd says of the units, and how exposed each is; says SKIPPED without systemd-analyze (ARGS=--strict: fails).
units: $(VENV)/installed
	$(BIN)/python tests/units.py $(ARGS)

# A package for this machine's architecture and Debian, in dist/deb.
deb: $(VENV)/installed
	@$(BIN)/python systemd/deb/build.py dist/deb $(ARGS)

# That package, installed and tried on a throw-away machine with systemd as PID 1 (root, systemd-container; cc and loop
# devices for an hour without a line, a wrong clock and a full disk); says SKIPPED
# where one can't be booted (ARGS=--strict: fails).
boot: deb
	$(BIN)/python -m tests.boot $(ARGS)

# Half a minute: installation, what the sandbox refuses, kills, a stuck loop.
boot-slice: deb
	$(BIN)/python -m tests.boot --slice $(ARGS)

# The tests that touch a book, on Debian 11's SQLite 3.34.1; says SKIPPED where it can't be had (ARGS=--strict: fails).
oldest: $(VENV)/installed
	$(BIN)/python tests/oldest.py $(ARGS)

# 1,000 mixed files, both programs killed ten times, a sandbox that fails a third of requests: SEED=n repeats a run.
campaign: $(VENV)/installed
	$(BIN)/python -m tests.campaign $(if $(SEED),--seed $(SEED)) $(ARGS)

# 100 files, two kills each; then once more with a planted bug, which has to be found.
campaign-slice: $(VENV)/installed
	$(BIN)/python -m tests.campaign --slice $(if $(SEED),--seed $(SEED)) $(ARGS)

# Everything broken in every way that works on this machine (docs/reliability.md): hours. SEED=n repeats a run,
# MEANS="line spool" does only these, ARGS="--scale 0.1" a tenth of each. Its figures go into the page.
torture: $(VENV)/installed
	$(BIN)/python -m tests.faults $(MEANS) $(if $(SEED),--seed $(SEED)) --json tests/faults/figures.json --page $(ARGS)

# Each means once, in some minutes, with the planted bugs that it has to catch. Says by name what can't be done here.
torture-slice: $(VENV)/installed
	$(BIN)/python -m tests.faults $(MEANS) --slice --together 2 $(if $(SEED),--seed $(SEED)) $(ARGS)

# 2,000 tamperings with real journals, 200 untouched ones, two verifiers: SEED=n repeats a run.
tamper: $(VENV)/installed
	$(BIN)/python -m tests.tamper $(if $(SEED),--seed $(SEED)) $(ARGS)

# Redemptions, reversals, returns and sales on a bad line and with jumping clocks, in made-up time: EXAMPLES, SEED.
machine: $(VENV)/installed
	MACHINE_EXAMPLES=$(or $(EXAMPLES),20000) $(BIN)/pytest -q $(if $(SEED),--hypothesis-seed=$(SEED)) tests/test_redemption_model.py -k TestRedemptions

# A shop in which something is wrong, to practise on: without NAME it lists them. Ctrl-C ends it.
breakdown: $(VENV)/installed
	$(BIN)/python tests/breakdowns.py $(NAME)

# A chain: 200 stores, one PostgreSQL (Debian's, from its package), one sandbox, outages, a rush, three stores with something
# wrong; some minutes, and a table. STORES=10 is the small one, SEED=n repeats a run.
fleet: $(VENV)/installed postgresql
	$(BIN)/python -m tests.fleet --stores $(or $(STORES),200) $(if $(SEED),--seed $(SEED)) $(ARGS)

# PostgreSQL, the shipper or the connection killed at 1,000 random points (ARGS="--points 100").
fleet-kills: $(VENV)/installed postgresql
	$(BIN)/python -m tests.fleet.kills $(if $(SEED),--seed $(SEED)) $(ARGS)

# How fast the ledger takes entries, and with ARGS="--stores 0 --rows 100000000" how soon it answers when it is full, which needs
# some 40 GB of disk. ARGS=--keep, here and above, puts the figures into docs/scale.md.
fleet-rate: $(VENV)/installed postgresql
	$(BIN)/python -m tests.fleet.rate $(ARGS)

postgresql:
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || apt-get install -y -qq --no-install-recommends postgresql pgbouncer

# Every figure beside references that are measured in the same run: most of an hour. ARGS="--only burst" does only that,
# ARGS=--page writes docs/performance.md from what was measured so far.
bench: $(VENV)/installed
	$(BIN)/python -m tests.bench $(ARGS)

# What takes hours and some gigabytes: ten million entries, a backlog of a million, 200 kills. ARGS="--entries 100000".
bench-long: $(VENV)/installed
	$(BIN)/python -m tests.bench --long $(ARGS)

# Some minutes; fails on a figure that is worse than half of what is asked.
bench-slice: $(VENV)/installed
	$(BIN)/python -m tests.bench --slice $(ARGS)

# Dependencies come from the lock (name, version, hash); the programs are installed as the wheel that users get.
$(VENV)/locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("omneo-journal needs Python 3.11 or newer: set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/installed: $(VENV)/locked $(SOURCES)
	@rm -rf $(VENV)/wheel
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir $(VENV)/wheel .
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall $(VENV)/wheel/*.whl
	@touch $@

# Writes the lock anew (needs uv): universal, so that one file serves x86_64 and aarch64.
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --output-file requirements.lock

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
