# make demo        the whole road on a synthetic set: videos, training, questions, language model, report
# make test        the fast tests: every formula, parser and refusal, and the main road
# make test-all    style, types and all tests, as CI runs them
# make lint        style and types alone
# make bench       the step, the loader, the readers and the language model against their rivals, on a CPU
# make bench-gpu   on a GPU: time of a step, clips a second, MFU, memory, the share of the loader; Vicuna-7B's
#                  LoRA step, scoring and chat; without one, the arithmetic of both
# make evidence    what each part of the method brings on the synthetic set; hours on two cores
# Each makes .venv if it is missing. PYTHON picks the interpreter, 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin
RESULTS := benchmarks/results

.PHONY: demo test test-all lint bench bench-gpu evidence

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

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -q -m "not slow"

test-all: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -q --hypothesis-profile=thorough

bench: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.ssl_step --cases s112 s224 b224 --out $(RESULTS)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.loader --out $(RESULTS)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.video_read --out $(RESULTS)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.mllm --out $(RESULTS)

bench-gpu: .venv/installed
	$(BIN)/python -m benchmarks.gpu_step --out $(RESULTS)
	$(BIN)/python -m benchmarks.gpu_mllm --out $(RESULTS)
	$(BIN)/python -m benchmarks.stall --out $(RESULTS)

evidence: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.evidence run
	$(BIN)/python -m benchmarks.evidence table
