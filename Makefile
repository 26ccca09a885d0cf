# make demo   the whole road on a synthetic set: videos, training, questions, language model, report
# make test   style, types and tests, as CI runs them
# make lint   style and types alone
# Each makes .venv if it is missing. PYTHON picks the interpreter, 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint

.venv/installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev,log]"
	touch $@

demo: .venv/installed
	$(BIN)/python scripts/demo.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -q
