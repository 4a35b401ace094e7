# Two commands do all set-up themselves: make run, make test.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?=
BIN := $(VENV)/bin
comma := ,

.PHONY: run test test-slow lint reproduce explorer recordings clean

run: $(VENV)/.run
	$(BIN)/python -m experiments
	$(BIN)/python -m experiments stream=recorded

test: $(VENV)/.test lint
	$(BIN)/python -m pytest -q -m "not slow" -n auto --dist loadfile

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -q -m slow -n auto --dist loadfile

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every committed table and figure, made anew from nothing and compared with the one that was there; costs against
# whichever peers can be installed.
reproduce: $(VENV)/.run
	for extra in peers training jax report; do \
	    $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[$$extra]" || \
	    echo "kalmean[$$extra] cannot be installed here: its tables do without it, or are not made"; \
	done
	$(BIN)/python -m experiments.reproduce

# The page on which estimators are explored, after its sources changed.
explorer: $(VENV)/.run
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[report]'
	$(BIN)/python -m experiments.explorer

recordings: $(VENV)/.run
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[training]'
	$(BIN)/python -m experiments.recorder

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kalmean needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.run: $(VENV)/.python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[report]'
	touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test$(if $(EXTRAS),$(comma)$(EXTRAS))]'
	touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) results/runs results/cells
