# Every target sets up what it needs; nothing has to be done before the first one.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

run: $(VENV)/.runtime ## Run the server on ./var, with a key and a token made for you
	$(BIN)/lora-server serve --local var

test: $(VENV)/.test ## Run the tests
	$(BIN)/pytest -n 2

lint: $(VENV)/.test ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test ## Check types, of the tests too
	$(BIN)/mypy

bench-inspection: $(VENV)/.test ## Measure what judging a file costs
	$(BIN)/python -m benchmarks.inspection

bench-weights: $(VENV)/.test ## Measure what measuring a LoRA by its weights costs
	$(BIN)/python -m benchmarks.evaluation_weights

bench-neighbours: $(VENV)/.test ## Measure what it costs to find out who is like a LoRA
	$(BIN)/python -m benchmarks.evaluation_neighbours

FUZZ_SECONDS ?= 120
FUZZ_BOUNDS := -max_len=8192 -rss_limit_mb=1024 -timeout=10 -print_final_stats=1

fuzz: build/fuzz/.installed ## Fuzz the parsers, guided by coverage, for FUZZ_SECONDS each
	build/fuzz/bin/python -m tests.fuzz.seeds build/fuzz/seeds
	mkdir -p build/fuzz/found/safetensors build/fuzz/found/torch
	build/fuzz/bin/python -m tests.fuzz.fuzz_safetensors $(FUZZ_BOUNDS) \
	  -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/safetensors- \
	  -dict=tests/fuzz/safetensors.dict build/fuzz/found/safetensors build/fuzz/seeds/safetensors
	build/fuzz/bin/python -m tests.fuzz.fuzz_torch $(FUZZ_BOUNDS) \
	  -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/torch- \
	  build/fuzz/found/torch build/fuzz/seeds/torch

build/fuzz/.installed: requirements/test.txt requirements/fuzz.txt
	$(PYTHON) -m venv build/fuzz
	build/fuzz/bin/pip install --quiet --disable-pip-version-check --require-hashes \
	  -r requirements/test.txt -r requirements/fuzz.txt
	touch $@

lock: ## Lock the newest versions that setup.py allows
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet uv
	build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command 'make lock' setup.py -o requirements/runtime.txt
	build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command 'make lock' --extra test setup.py \
	  -o requirements/test.txt
	echo setuptools | build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' - \
	  -o requirements/build.txt
	build/lock/bin/uv pip compile --quiet --only-binary :all: --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' \
	  -c requirements/test.txt requirements/fuzz.in -o requirements/fuzz.txt

install: ## Install or upgrade the services on this host, as root
	systemd/install.sh

uninstall: ## Remove them; data, settings and users stay
	systemd/uninstall.sh

test-systemd: $(VENV)/.test ## Install into a Debian that is booted for it, as root, and test there
	TEST_SYSTEMD=1 $(BIN)/pytest -n 2 --dist loadgroup tests/systemd

clean: ## Remove what the targets made, but not ./var
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis artefacts

# A stamp is newer than what it was installed from; the test set holds the runtime set.
$(VENV)/.runtime: requirements/runtime.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/.test: requirements/test.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@ $(VENV)/.runtime

.PHONY: help run test lint types bench-inspection bench-weights bench-neighbours fuzz lock install \
  uninstall test-systemd clean
