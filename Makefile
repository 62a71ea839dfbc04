# The commands of Parley. `make run` and `make test` need nothing but Python 3.11–3.13, gcc, g++ and make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,13))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# Byte code is kept: without it every start of every process compiles all of Ray and vLLM again.
unexport PYTHONDONTWRITEBYTECODE
export PROMPT FLOW

.PHONY: run stop test chaos check bench clean env format

env:
	@test -n "$(PYTHON)" || { echo "Parley needs Python 3.11, 3.12 or 3.13 on the PATH; none was found." >&2; exit 2; }
	@$(PYTHON) deploy/make_environment.py --venv $(VENV)

run: env
	@$(BIN)/parley up
	@$(BIN)/parley run --demo

stop:
	@if [ -x $(BIN)/parley ]; then $(BIN)/parley down; else echo "nothing was started: $(VENV) does not exist"; fi

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.house.check_sizes
	$(BIN)/lint-imports
	$(BIN)/mypy

test: env
	@$(BIN)/python -m tests.run_suites

# With a runtime of their own, which must have the machine to itself. Engines wait more than they work: two tests at once.
ALONE := overload two_nodes

# Every fault test at its full size, 20 minutes at most; PARLEY_CHAOS_SEED=… throws the same dice again.
chaos: env
	@PARLEY_CHAOS=long $(BIN)/python -m pytest tests/chaos/test_engine_*.py tests/conformance/stores/test_lifecycle_model.py \
	  -n 2 --dist loadfile --durations=20
	@PARLEY_CHAOS=long $(BIN)/python -m pytest tests/chaos --ignore-glob='tests/chaos/test_engine_*.py' \
	  $(patsubst %,--ignore=tests/chaos/test_%.py,$(ALONE)) --durations=20
	@for part in $(ALONE); do PARLEY_CHAOS=long $(BIN)/python -m pytest tests/chaos/test_$$part.py --durations=20; done

bench: env
	@$(BIN)/python -m benchmarks

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: stop
	rm -rf $(VENV) .coverage .coverage.* build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
