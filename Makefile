# Sets up on first use and runs: `make run` the demonstration, `make test` the tests. Everything installs into .venv.

PYTHON ?= python3
# Which ONNX Runtime is installed: cpu, or gpu.
RUNTIME ?= cpu
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.ready

.PHONY: run test lint format proto bench wheel setup debug address thread sanitize fuzz annotate clean

run: $(SETUP)
	$(BIN)/sluice demo

test: $(SETUP)
	$(BIN)/python -m service.protogen --check
	$(BIN)/python -m pytest

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	sh .ci/warnings

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(SETUP)

# What the package needs to be built again; the kernels' sources among them.
SOURCES := setup.py build_probes.py pyproject.toml $(wildcard kernels/*.pyx kernels/*.pxd kernels/*.h)

$(SETUP): $(SOURCES)
	@PYTHON=$(PYTHON) sh .ci/packages
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing sluice and its dependencies into $(VENV) and compiling the kernels (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24"
	@# setuptools warns of every editable installation.
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(RUNTIME),demo,dev,bench]'
	@touch $@

# Writes service/pb from proto/; commit the result.
proto: $(SETUP)
	$(BIN)/python -m service.protogen

# The kernels' tests with every Cython check on; then with address, undefined-behaviour and thread sanitizers.
debug address thread: $(SETUP)
	sh .ci/kernels $@
sanitize: address thread

# Searches for inputs that make the server misbehave, in the address build; docs/safety.md says more.
FUZZ_SECONDS ?= 600
fuzz: $(SETUP)
	sh .ci/fuzz --seconds $(FUZZ_SECONDS)

# Cython's view of the kernels in build/annotate: no yellow line belongs inside a nogil body.
annotate: $(SETUP)
	KERNELS_ANNOTATE=1 KERNELS_BUILD_DIR=build/annotate $(BIN)/python setup.py --quiet build_ext --build-lib build/annotate

# The source distribution, and the wheel with nghttp2 inside, in dist/.
wheel: $(SETUP)
	sh .ci/wheel $(BIN)/python dist

bench: $(SETUP)
	$(BIN)/python -m bench
	$(BIN)/python -m pytest bench

clean:
	rm -rf build dist *.egg-info kernels/*.so $(SETUP)
