# `make run` and `make test` are the README's two commands; each does all the set-up that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(wildcard native/*.c native/*.h)

V2_TESTS ?= tests/kernel/test_containers.py tests/kernel/test_resources.py tests/kernel/test_runtime_command_line.py \
	tests/kernel/test_containers_without_root.py tests/unit/test_device_rules.py

.PHONY: setup run test test-v2 lint types bench docs clean

setup: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml hatch_build.py $(NATIVE) src/boxship/libcontainer/plan/ops.py | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	$(BIN)/python -m compileall -q src/boxship
	touch $@

run: setup
	$(BIN)/boxship run --rm hello

lint: setup
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

test: setup
	$(BIN)/python tests/peers.py
	$(MAKE) lint types
	$(BIN)/python -m pytest -q $(PYTEST_FLAGS)

# The runtime's kernel tests on a host with cgroup v2 only: a virtual machine with Debian's kernel (tests/vm).
test-v2: setup
	$(BIN)/python tests/vm/machine.py -- $(BIN)/python -m pytest -q -p no:cacheprovider $(V2_TESTS)
	$(BIN)/python tests/vm/machine.py --systemd -- $(BIN)/python -m pytest -q -p no:cacheprovider \
		tests/kernel/test_real_systemd.py

bench: setup
	$(BIN)/python benchmarks/run.py

docs: setup
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build dist native/build src/boxship/_native src/boxship/_images
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
