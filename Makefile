# Everything a fresh machine needs: `make demo` fits a recording, `make test` runs the tests. Both make .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ONLY ?=

# Recordings made by others stand beside the project on some machines; elsewhere set FITSPIKE_DATA or let `datasets get` download them.
ifndef FITSPIKE_DATA
ifneq ($(wildcard ../shared/data/README.md),)
export FITSPIKE_DATA := $(abspath ../shared/data)
endif
endif

DISTRIBUTIONS := $(wildcard datasets/pyproject.toml plugins/*/pyproject.toml)
EDITABLE := $(foreach file,$(DISTRIBUTIONS),-e $(dir $(file)))

.PHONY: env demo test acceptance bench docs examples lint clean

env: $(VENV)/.stamp

# Packages are compiled on all cores, where pip takes one; some hold files that are not Python of this version, which is no error.
$(VENV)/.stamp: pyproject.toml constraints.txt $(DISTRIBUTIONS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt --no-build-isolation -e ".[nwb,nix,docs,test]" $(EDITABLE)
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib > /dev/null || true
	touch $@

demo: env
	$(BIN)/python docs/examples/demo.py

test: env
	$(BIN)/python -m pytest -n 2

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: env
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# What the pages show, run as written
examples: env
	$(BIN)/python -m pytest -n 2 -m examples tests/docs

# Slow tests and all scripts of tests/acceptance; make acceptance ONLY=recordings,stability runs some scripts
acceptance: env
	test -n "$(ONLY)" || $(BIN)/python -m pytest -m slow
	$(BIN)/python tests/acceptance/run.py $(ONLY)

# make bench ONLY=big_recording; what it is compared with lives in an environment of its own
bench: env .venv-bench/.stamp
	$(BIN)/python tests/acceptance/run.py --bench $(ONLY)

.venv-bench/.stamp: tests/benchmarks/peers.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet -r tests/benchmarks/peers.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-bench docs/_build build *.egg-info .pytest_cache .ruff_cache
