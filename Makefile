# make tune: set up and tune the bundled model.  make check: before a commit.  make test: all but slow tests.
PYTHON ?= python3.11
VENV := .venv
SERVETUNE := $(VENV)/bin/servetune
STAMP := $(VENV)/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup tune check test test-all test-cluster soak lint docs \
	bench-measure bench-repeat bench-confirm bench-loadgen bench-search bench-scale bench-page clean

setup: $(STAMP)

# Torch first: a plain request for it by another package would bring the CUDA build.
$(STAMP): setup.cfg pyproject.toml constraints.txt Makefile
	test -x $(VENV)/bin/python || $$(command -v $(PYTHON) || command -v python3) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt torch
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dashboard,demo,docs,test]'
	touch $@

tune: setup
	$(SERVETUNE) demo build/demo
	$(SERVETUNE) tune configs/quickstart.yaml

# Lint, types, documentation and the tests that need only Python; less than 90 seconds.
check: lint docs
	$(VENV)/bin/python -m pytest -m unit --numprocesses 2

# Side by side, except for the tests with Ray or TorchServe, which count the host's processes.
test: setup
	$(VENV)/bin/python -m pytest -m "not ray and not torchserve and not slow" --numprocesses 2
	$(VENV)/bin/python -m pytest -m "(ray or torchserve) and not slow"

test-all: setup
	FUZZ_EXAMPLES=20000 $(VENV)/bin/python -m pytest

# A Ray cluster of five hosts that are network namespaces; as root, about 30 minutes.
test-cluster: setup
	$(VENV)/bin/python -m pytest tests/cluster

# Two hours of runs in which one process after another is killed; ARGS="--minutes 20" for less.
soak: setup
	$(VENV)/bin/python -m benchmarks.soak $(ARGS)

# The documentation site, in build/site.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# How right the measured rates are: simulated servers, then stubs of known rate, about 25 minutes;
# ARGS="--only repeated" for the simulated ones, ARGS="--case NAME" for one stub.
bench-measure: setup
	$(VENV)/bin/python -m benchmarks.measure $(ARGS)

# How well the rates of the bundled model repeat, on a quiet machine; at most 45 minutes,
# ARGS="--time-limit-s 900" for less.
bench-repeat: setup
	$(SERVETUNE) demo build/demo
	$(VENV)/bin/python -m benchmarks.repeatability $(ARGS)

# How right a confirmation is: simulated servers, about 5 minutes; ARGS="--runs 100" for less.
bench-confirm: setup
	$(VENV)/bin/python -m benchmarks.confirmation $(ARGS)

# What a request costs the load generator, beside wrk, ab, hey and locust; about 4 minutes.
bench-loadgen: setup
	$(VENV)/bin/python -m benchmarks.loadgen $(ARGS)

# Which search needs the fewest seconds, on recorded and simulated surfaces; at most 30 minutes.
bench-search: setup
	$(VENV)/bin/python -m benchmarks.search $(ARGS)

# What a run costs beside its trials, by hosts and by trials; about 10 minutes.
bench-scale: setup
	$(VENV)/bin/python -m benchmarks.scale $(ARGS)

# What an update of the page costs the service, and its reader; half a minute.
bench-page: setup
	$(VENV)/bin/python -m benchmarks.page $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info
