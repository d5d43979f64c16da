# Everything runs in .venv, which the first use creates. `make` alone lists the targets.
PYTHON ?= python3
DB ?= sqlite
SEED ?= 1
KILLS ?= 40
# Tests mostly wait, so more of them than cores run at once.
AT_ONCE ?= 4
SECONDS ?= 60
SUITE ?= bookworm
SAMPLE ?= draw

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Other packages named `watchdog` on this machine must not be imported.
unexport PYTHONPATH PYTHONHOME

BIN := .venv/bin
# One stamp per set of dependencies, so the demo does not wait for the development tools.
RUNTIME := .venv/.installed
POSTGRESQL := .venv/.installed-postgresql
BENCH := .venv/.installed-bench
DEV := .venv/.installed-dev
PINS := pyproject.toml constraints.txt
PYTEST := $(BIN)/python -m pytest --quiet --numprocesses $(AT_ONCE) --dist worksteal
# What `make test-quick` leaves out.
SLOW := daemon demo docs faults integrations invariants whole services/test_guard.py services/test_poller.py store/reports \
	repository/test_benchmarks.py
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: demo
demo: $(if $(filter postgresql,$(DB)),$(POSTGRESQL),$(RUNTIME)) ## watch it work, in under a minute; DB=postgresql uses a real PostgreSQL
	@$(BIN)/zego-watchdog demo --db $(DB)

.PHONY: test
test: $(DEV) ## run all tests, on SQLite and on a PostgreSQL of their own: 10 minutes on two cores
	@$(BIN)/python -m tests.support.tools
	@echo "All tests take about 10 minutes on two cores, those of make test-quick 90 seconds."
	@$(PYTEST) || tests/again.sh $(BIN)/python

.PHONY: test-quick
test-quick: $(DEV) ## the same in 90 seconds: on SQLite only, without whole daemons, faults, documents, reports and benchmarks
	@$(BIN)/python -m tests.support.tools
	@$(PYTEST) $(SLOW:%=--ignore=tests/%) -k "not postgresql" || tests/again.sh $(BIN)/python

.PHONY: bare-test
bare-test: ## run `make demo` and `make test` on a minimal Debian, as root and not; SUITE=sid for Python 3.14; needs root
	@tests/bare_machine.sh $(SUITE) somebody "make demo" "make test"
	@tests/bare_machine.sh $(SUITE) root "make demo" "make test"

.PHONY: pythons
pythons: ## run `make test-quick` with Python 3.12, 3.13 and 3.14, the last two on a minimal Debian; needs root
	@tests/other_python.sh 3.12
	@tests/bare_machine.sh trixie somebody "make test-quick"
	@tests/bare_machine.sh sid somebody "make test-quick"

.PHONY: check
check: $(DEV) ## check lint, formatting, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy packaging/manual.py packaging/copyright.py packaging/readme.py
	$(BIN)/lint-imports

.PHONY: format
format: $(DEV) ## fix lint and format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: bench
bench: $(BENCH) ## measure it and its alternatives, write docs/benchmarks.md; PARTS="lateness pace"
	@$(BIN)/python -m benchmarks $(PARTS) --write docs/benchmarks.md

.PHONY: deb
deb: $(RUNTIME) ## build a Debian package for this machine's release, in dist
	@packaging/build_deb.sh

.PHONY: system-test
system-test: $(DEV) deb ## test that package in a container with a real systemd; needs root
	@tests/system/run.sh --quiet

.PHONY: simulate
simulate: $(DEV) ## simulate a thousand rooms for two hours in every mode; SEED=7 for other random numbers
	@$(BIN)/python -m simulation --seed $(SEED)

.PHONY: report-sample
report-sample: $(DEV) ## draw docs/report-sample.html and its picture (needs Chromium); SAMPLE= simulates again, in a minute
	@$(BIN)/python -m simulation.sample $(SAMPLE)

.PHONY: faults
faults: $(DEV) ## inject faults into real processes; KILLS=500 for more kill -9, WRITE=1 updates the docs
	@FAULTS=1 FAULTS_KILLS=$(KILLS) FAULTS_WRITE=$(WRITE) $(BIN)/python -m pytest --quiet --numprocesses $(AT_ONCE) tests/faults

.PHONY: soak
soak: $(DEV) ## run daemons, people and faults at random, for SECONDS=60
	@$(BIN)/python -m tests.soak --seconds $(SECONDS)

.PHONY: constraints
constraints: $(DEV) ## write the installed versions to constraints.txt
	@{ sed '/^[^#]/,$$d' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable; } > constraints.new
	@mv constraints.new constraints.txt

.PHONY: clean
clean: ## remove .venv and the tools' files
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "zego-watchdog needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)" >&2; \
		echo "Use another one: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12" >&2; exit 1; }
	@echo "Creating .venv"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "$(PYTHON) cannot create virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(RUNTIME): .venv/pyvenv.cfg $(PINS)
	@echo "Installing zego-watchdog into .venv"
	@$(INSTALL) . && touch $@

$(POSTGRESQL): .venv/pyvenv.cfg $(PINS)
	@echo "Installing zego-watchdog and a PostgreSQL server into .venv"
	@$(INSTALL) '.[postgresql-server]' && touch $(RUNTIME) $@

$(BENCH): .venv/pyvenv.cfg $(PINS)
	@echo "Installing zego-watchdog and the benchmark's peers into .venv"
	@$(INSTALL) '.[bench]' && touch $(RUNTIME) $(POSTGRESQL) $@

$(DEV): .venv/pyvenv.cfg $(PINS)
	@echo "Installing zego-watchdog and its development tools into .venv"
	@$(INSTALL) '.[dev]' && touch $(RUNTIME) $(POSTGRESQL) $(BENCH) $@
