# `make run` and `make test` are the README's two commands; each does all the set-up that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(wildcard native/*.c native/*.h)

V2_TESTS ?= tests/kernel/test_containers.py tests/kernel/test_resources.py tests/kernel/test_runtime_command_line.py \
	tests/kernel/test_containers_without_root.py tests/unit/test_device_rules.py

ARM_TESTS ?= $(V2_TESTS) tests/kernel/test_attacks.py tests/kernel/test_bad_configs.py tests/kernel/test_library.py \
	tests/kernel/test_mount_options.py tests/kernel/test_processes_and_namespaces.py \
	tests/kernel/test_plan_server.py tests/kernel/test_seccomp_agent.py tests/kernel/test_explain_equals_strace.py \
	tests/unit/test_seccomp.py

.PHONY: setup run test test-v2 test-arm lint types bench docs clean

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

# The same on aarch64, emulated: a virtual machine with that processor and a Debian system of its own.
test-arm: setup
	$(BIN)/python tests/vm/machine.py --processor aarch64 --timeout 5400 -- python3 -m pytest -q -p no:cacheprovider \
		$(ARM_TESTS)

bench: setup
	$(BIN)/python benchmarks/run.py

docs: setup
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build dist native/build src/boxship/_native src/boxship/_images
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
