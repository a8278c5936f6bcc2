# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

SEED ?= $(shell date +%s)
TEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist worksteal --randomly-seed=$(SEED)

.PHONY: setup demo test campaign faults check portability bench gpu ui clean

setup: $(READY)  ## install, nothing else

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)  ## one tagger under four batching strategies on the built-in corpus, then the comparison
	$(BIN)/hydromel experiment=demo
	$(BIN)/hydromel-compare runs/demo
	@echo 'Open the runs in MLflow: make ui'

ui: $(READY)  ## the MLflow page, at http://127.0.0.1:5000; prints the address of the newest comparison's charts
	$(BIN)/python -m reporting.mlflow_ui.open_ui mlflow.db & \
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
	$(BIN)/mlflow server --workers 1 --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000

test: $(READY)  ## all tests, in random order (SEED=N: in that one); HYDROMEL_DATA=FOLDER adds those on published data
	@echo 'order of tests: SEED=$(SEED)'
	$(TEST)

campaign: $(READY)  ## audits every combination of configs/ and every module of docs/audit.md, not only a sample; then faults
	$(TEST) -m campaign
	$(MAKE) faults

faults: $(READY)  ## kills 100 runs, damages 3,000 files and 3,000 configs, and more (SEED=N draws them; REPORT=FILE: the table)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults --seed $(SEED) $(if $(REPORT),--report $(REPORT))

check: $(READY)  ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@echo 'order of tests: SEED=$(SEED)'
	$(BIN)/mypy & types=$$!; $(TEST); tests=$$?; wait $$types && exit $$tests

portability: $(READY)  ## all tests as on other processors, with other threads, and on a busy machine; takes three times as long
	$(BIN)/python tests/portability.py

bench: $(READY)  ## measure speed beside other libraries and lower bounds, alternating; HYDROMEL_DATA=FOLDER adds what needs published data
	$(BIN)/python benchmarks/bench.py --results benchmarks/results

gpu:  ## PART=tests|layers|train|pretrained|ranks of what needs a GPU, each within nine minutes; WHEELS=FOLDER installs those first
	$(PYTHON) benchmarks/gpu.py $(PART) $(if $(WHEELS),--wheels $(WHEELS))

clean:
	rm -rf $(VENV)
