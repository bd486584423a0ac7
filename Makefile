# Two commands are enough on a fresh machine with Python 3.11 to 3.13: make demo, make test.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
VENV := .venv
BIN := $(VENV)/bin
WHEEL_VENV := .venv-wheel
SMOKE_DIR := $(abspath build/smoke)
JOBS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations 10

unexport PYTHONDONTWRITEBYTECODE  # tests start this package as a process, which compiles each file once then

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit test-order test-mutants test-data test-faults test-faults-short test-next test-slurm bench lint audit
.PHONY: docs gallery results
.PHONY: smoke wheel-check clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(BIN)/.installed  ## install, then attack a small network on the embedded digits
	$(BIN)/trustml task=fgsm model=cifar_cnn

test: $(BIN)/.installed  ## run the tests that need no real data, in JOBS=2 processes
	$(PYTEST) -m 'not data and not faults'

test-unit: $(BIN)/.installed  ## run the tests that train nothing and start no process
	$(PYTEST) -m unit

test-order: $(BIN)/.installed  ## run the tests of make test in a random order, and render every figure
	TRUSTML_RENDER=1 $(PYTEST) -p randomly -m 'not data and not faults'

test-mutants: $(BIN)/.installed  ## plant faults, one at a time, and see that the tests find each
	$(BIN)/python -m tests.mutants.run --jobs $(JOBS)

test-data: $(BIN)/.installed  ## run the tests on the real data sets in TRUSTML_DATA_DIR
	$(PYTEST) -m data

test-faults: $(BIN)/.installed  ## run the long tests of kills, full disks, races and hostile input, in full
	$(PYTEST) -m faults

test-faults-short: $(BIN)/.installed  ## the same with fewer kills, cases and jobs of each kind
	TRUSTML_FAULTS=short $(PYTEST) -m faults

test-next: $(BIN)/.installed  ## run the tests of the command line against the newest Hydra, pre-releases too; may fail
	rm -rf build/next && $(BIN)/python -m pip install --quiet --pre --target build/next hydra-core
	-PYTHONPATH=$(abspath build/next) $(PYTEST) -p no:cacheprovider -W default -m 'not data and not faults' tests/config tests/cli tests/sweeps

test-slurm: $(BIN)/.installed  ## run a sweep through a real SLURM of one node (root; apt-get install slurm-wlm munge)
	PYTHON=$(abspath $(BIN))/python tests/slurm/run.sh

bench: $(BIN)/.installed  ## measure the speed against peers and write benchmarks/results.md
	# torchattacks pins versions that the other peers do not live with, so that it lies in a folder of its own
	$(BIN)/python -m pip install --quiet --no-deps --target build/torchattacks torchattacks
	PYTHONPATH=build/torchattacks $(BIN)/python -m benchmarks

lint: $(BIN)/.installed  ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(BIN)/.installed  ## look for known vulnerabilities in what is installed
	.ci/audit $(BIN)/python

docs: $(BIN)/.installed  ## build the documentation into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

results: $(BIN)/.installed  ## run what is missing of the main numbers on the real data in TRUSTML_DATA_DIR (a day), and write docs/results.md and README's numbers
	status=0; $(BIN)/trustml study results output_dir=build/results resume=true || status=$$?; \
		$(BIN)/python docs/results.py build/results && exit $$status

gallery: $(BIN)/.installed  ## make the pictures of the gallery anew, one run of each task: minutes
	$(BIN)/python docs/gallery.py

smoke: $(BIN)/.installed  ## every task through the command line, in seconds
	rm -rf $(SMOKE_DIR) && mkdir -p $(SMOKE_DIR)
	cd $(SMOKE_DIR) && TRUSTML_CACHE_DIR=$(SMOKE_DIR)/cache $(abspath $(BIN))/trustml -m trainer=smoke \
	  task=$$($(abspath $(BIN))/python -c "from pathlib import Path; print(','.join(sorted(p.stem for p in Path('$(CURDIR)/conf/task').glob('*.yaml'))))")

wheel-check: $(BIN)/.installed  ## build the wheel and run it from an empty directory in a new environment
	rm -rf dist $(WHEEL_VENV)
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv $(WHEEL_VENV)
	# by name, as a user does; the constraint makes the name mean this wheel
	echo "trustml-cli @ file://$$(ls $(CURDIR)/dist/*.whl)" > dist/constraints.txt
	$(WHEEL_VENV)/bin/python -m pip install --quiet trustml-cli --constraint dist/constraints.txt
	empty=$$(mktemp -d) && cd $$empty && TRUSTML_CACHE_DIR=$$empty/cache $(CURDIR)/$(WHEEL_VENV)/bin/trustml task=fgsm \
	  && test -s outputs/fgsm/*/report.html && rm -rf $$empty
	rm -rf $(WHEEL_VENV)

clean:  ## remove everything that these commands made, but not outputs/
	rm -rf $(VENV) $(WHEEL_VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
