# The entries of the project; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
NATIVE := .venv-native
TASKS := build/bench-tasks-venv
PIP := -m pip install --quiet --disable-pip-version-check

# What the dashboard is made of, and what is made of it.
DASHBOARD := src/geartrain/web/dashboard/index.html
DASHBOARD_SOURCES := $(shell find dashboard -name node_modules -prune -o -type f ! -name openapi.json ! -name schema.d.ts -print)
SOURCES := $(shell find src -name '*.py' -o -name '*.c') setup.py pyproject.toml
BENCH ?=
JOBS ?= 6000000
FUZZ_SECONDS ?= 60
CRASH ?= --store all --kill both
ROUNDS ?= 28
SEED ?= 1
STORE ?= postgresql
CHAOS ?=
TESTS ?= tests
# Most tests wait for something: three processes for two CPUs run them.
PROCESSES ?= $(shell echo $$((3 * $$(getconf _NPROCESSORS_ONLN) / 2)))
PYTEST := -m pytest -n $(PROCESSES) --dist worksteal
# gearmand plays the stories once: it stays the same. What runs a second time with the newest Python, and what does with the rules interpreted: all that is made of them.
CORE := tests/wire tests/jobserver tests/client tests/worker tests/test_conversations.py
RULES := tests/wire tests/jobserver tests/test_vectors.py tests/test_conversations.py \
	$(addprefix tests/daemon/test_,in_process.py limits.py unread_output.py)
# What runs a second time with the transport of asyncio, since what is compiled brings the other one.
TRANSPORT := tests/test_conversations.py $(filter-out %_store.py,$(wildcard tests/daemon/test_hostile_*.py)) \
	$(addprefix tests/daemon/test_,in_process.py limits.py transport.py unread_output.py)

.DEFAULT_GOAL := help
.PHONY: help demo test test-compiled test-interpreted test-newest coverage lint format types check dashboard dashboard-check bench bench-day bench-latency bench-policies bench-http bench-dashboard bench-fleet bench-batch bench-tasks bench-stores docs conversations
.PHONY: fuzz crash chaos clean

help: ## list these entries
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo $(if $(shell command -v npm),dashboard) ## count the words of Python's library: a job server, two workers, a shell command
	@$(VENV)/bin/python demo/demo.py

test: test-compiled test-interpreted test-newest ## install what the tests need, and run them: compiled, interpreted, with a newer Python

test-compiled: services $(NATIVE)/.installed $(DASHBOARD)
	$(NATIVE)/bin/geartrain version
	$(NATIVE)/bin/python $(PYTEST) $(TESTS)
	GEARTRAIN_TRANSPORT=asyncio $(NATIVE)/bin/python $(PYTEST) $(TRANSPORT) -k 'not gearmand_plays and not rules_play'

test-interpreted: $(VENV)/.dev services
	$(VENV)/bin/python $(PYTEST) $(RULES) -k 'not gearmand_plays'

# The newest Python that is installed here, beside the one that all else uses.
test-newest: services ## the tests of the core, clients and workers, compiled, with the newest Python installed here
	@newest=$$(tools/newest-python); if [ -z "$$newest" ]; then echo 'only one Python is installed here: not tested with a newer one'; \
	else $(MAKE) --no-print-directory NATIVE=.venv-newest PYTHON=$$newest .venv-newest/.installed && \
	.venv-newest/bin/geartrain version && .venv-newest/bin/python $(PYTEST) $(CORE) -k 'not gearmand_plays'; fi

coverage: $(VENV)/.dev services ## how much of the sources the interpreted tests run through
	$(VENV)/bin/python -m coverage run --source=src/geartrain -m pytest $(TESTS)
	$(VENV)/bin/python -m coverage report --skip-covered --sort=cover | tail -40

dashboard: $(DASHBOARD) ## build the dashboard, which the job server serves with --http; needs Node.js and npm

dashboard-check: $(VENV)/.dev dashboard/node_modules/.installed ## the dashboard's types against the API, its lint and its tests
	$(VENV)/bin/python tools/write-openapi > dashboard/openapi.json
	cd dashboard && npm run --silent types && npm run --silent check

lint: $(VENV)/.dev ## ruff over everything: rules and format
	$(VENV)/bin/ruff check --no-cache . # sorting the imports depends on other files
	$(VENV)/bin/ruff format --check .

format: $(VENV)/.dev ## bring every file into the formatter's form
	$(VENV)/bin/ruff format .

types: $(VENV)/.dev ## mypy, strict
	$(VENV)/bin/mypy
	tools/type-check-tests $(VENV)/bin/mypy

check: lint types dashboard-check test ## what CI runs: lint, types, tests

bench: $(NATIVE)/.installed ## our job server beside gearmand, with each transport, and Python workers; BENCH="--only drain" narrows it
	mkdir -p build
	$(CC) -O2 -Wall -Wextra -o build/load bench/*.c
	$(PYTHON) bench/compare.py --python $(NATIVE)/bin/python $(BENCH)
	$(PYTHON) bench/compare.py --python $(NATIVE)/bin/python --ours-name asyncio --ours-options '--transport asyncio' $(BENCH)
	$(if $(BENCH),,@$(MAKE) --no-print-directory bench-tasks)

bench-day: $(NATIVE)/.installed ## six million stored jobs, submitted, run and removed: a minute or two; JOBS=1000000 for fewer
	mkdir -p build
	$(CC) -O2 -Wall -Wextra -o build/load bench/*.c
	$(PYTHON) bench/day.py --python $(NATIVE)/bin/python --jobs $(JOBS) $(BENCH)

bench-latency: $(NATIVE)/.installed ## how long others wait beside the longest works that a peer can ask for
	$(PYTHON) bench/latency.py --python $(NATIVE)/bin/python $(BENCH)

bench-policies: $(NATIVE)/.installed ## what policies cost: with and without, with very much under them, kept results
	mkdir -p build
	$(CC) -O2 -Wall -Wextra -o build/load bench/*.c
	$(PYTHON) bench/policies.py --python $(NATIVE)/bin/python $(BENCH)

bench-http: $(NATIVE)/.installed ## submissions over HTTP beside gearmand's, and Gearman beside those who ask over HTTP; needs wrk
	mkdir -p build
	$(CC) -O2 -Wall -Wextra -o build/load bench/*.c
	$(CC) -O2 -Wall -Wextra -o build/echo bench/echo/echo.c bench/connection.c
	$(CC) -O2 -Wall -Wextra -o build/bare bench/bare/bare.c
	$(PYTHON) bench/over_http.py --python $(NATIVE)/bin/python $(BENCH)

bench-dashboard: $(NATIVE)/.installed ## the dashboard's first paint, what a tab and 50 tabs cost, with very much to show; needs chromium
	mkdir -p build
	$(CC) -O2 -Wall -Wextra -o build/load bench/*.c
	$(NATIVE)/bin/python bench/dashboard.py $(BENCH)

bench-tasks: $(NATIVE)/.installed $(TASKS)/.installed ## Python workers beside Celery, RQ, dramatiq and gear, some minutes
	$(PYTHON) bench/tasks/compare.py --ours $(NATIVE)/bin/python --others $(TASKS)/bin/python $(BENCH)
	$(NATIVE)/bin/python bench/tasks/roundtrip.py
	$(NATIVE)/bin/python bench/tasks/importing.py

bench-batch: $(NATIVE)/.installed services ## rows into PostgreSQL, one job a call and in batches of 64
	$(NATIVE)/bin/python bench/batch.py $(BENCH)

bench-stores: $(NATIVE)/.installed services ## beside gearmand with the same databases; a million stored jobs; 3 GB of them
	mkdir -p build
	$(CC) -O2 -Wall -Wextra -o build/load bench/*.c
	$(NATIVE)/bin/python bench/stores.py $(BENCH)
	$(NATIVE)/bin/python bench/store_start.py
	$(NATIVE)/bin/python bench/spill.py

bench-fleet: $(NATIVE)/.installed services ## what a fleet costs and is worth: a member, two of them, adoption, idle members
	mkdir -p build
	$(CC) -O2 -Wall -Wextra -o build/load bench/*.c
	$(NATIVE)/bin/python bench/fleet.py $(BENCH)

docs: $(VENV)/.docs ## build the guides and the reference into build/docs
	$(VENV)/bin/zensical build --clean --strict
	cp -r tests/conversations build/docs/
	sed -i 's#\.\./tests/conversations/#conversations/#g' build/docs/compatibility.html

conversations: $(VENV)/.dev services ## the stories of packets: in memory, against our daemon, against gearmand
	$(VENV)/bin/python -m pytest tests/test_conversations.py tests/test_vectors.py

fuzz: $(VENV)/.dev ## let random histories happen to the rules for a minute; FUZZ_SECONDS=3600 for an hour
	$(VENV)/bin/python fuzz/run.py --seconds $(FUZZ_SECONDS)

crash: $(NATIVE)/.installed services ## kill job servers and stores under load, count what was lost; CRASH="--store redis --kill second"
	$(NATIVE)/bin/python crash/run.py --traffic both $(CRASH)

chaos: $(VENV)/.dev services ## break a fleet of three in namespaces, count what was lost; ROUNDS=200 SEED=1 STORE=mariadb; as root
	$(VENV)/bin/python chaos/run.py --rounds $(ROUNDS) --seed $(SEED) --store $(STORE) \
		--python $(firstword $(wildcard $(NATIVE)/bin/python) $(VENV)/bin/python) $(CHAOS)

clean: ## remove what was made here, the environments included
	rm -rf build dist dashboard/node_modules $(dir $(DASHBOARD)) $(VENV) $(NATIVE) .venv-newest .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ── environments ────────────────────────────────────────────────────────────────────────────────────────────────

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("geartrain needs Python 3.11 or newer")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo 'Python can make no environments here: apt install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The sources as they are, interpreted: for the demo, for work on them, for tools.
$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(PIP) -e '.[all]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(PIP) -e '.[all,test,dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(PIP) -e '.[docs]'
	@touch $@

# The others of bench-tasks, by themselves, so that nothing of theirs is ours.
$(TASKS)/.installed: bench/tasks/requirements.txt
	test -x $(TASKS)/bin/python || $(PYTHON) -m venv $(TASKS)
	$(TASKS)/bin/python $(PIP) -r bench/tasks/requirements.txt
	@touch $@

# What builds the dashboard, and judges it.
dashboard/node_modules/.installed: dashboard/package-lock.json
	cd dashboard && npm ci --no-progress --loglevel=error
	@touch $@

$(DASHBOARD): $(DASHBOARD_SOURCES) | dashboard/node_modules/.installed
	cd dashboard && npm run --silent build -- --logLevel warn

# A package installed as users have it, compiled where there is a C compiler, with the dashboard where there is npm.
$(NATIVE)/.installed: $(SOURCES) $(DASHBOARD_SOURCES)
	test -x $(NATIVE)/bin/python || $(PYTHON) -m venv $(NATIVE)
	$(NATIVE)/bin/python $(PIP) '.[all,test]'
	@touch $@

.PHONY: services
services:
	@tools/install-test-services
