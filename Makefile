# Commands by name: `make help`. CONTRIBUTING.md says what to know about them. CI calls some of these.
# A variable changes what a command is told: `make fuzz SEED=7 SECONDS=600`.

SEED ?= 1
SECONDS ?= 60
KILLS ?= 1000
INPUTS ?= 1000000
SOURCES_IN_C = $(shell git ls-files '*.c' '*.h' '*.cpp')

.PHONY: help install check test lint types format structure examples docs docs-quick pictures bench \
    bench-compare bench-bridges accuracy fuzz fuzz-files kill sanitize aarch64 compilers floors wheels workflows ci

help:           ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

install:        ## the package, editable, with all tools; again after a change in csrc/ or in a .pyx
	pip install -e '.[dev]'

check: lint types structure test ## what to run before a commit

test:           ## tests, and the examples in docstrings and README
	pytest

lint:           ## style of Python and C, security of workflows
	ruff check .
	ruff format --check .
	clang-format --dry-run -Werror $(SOURCES_IN_C)
	zizmor --offline --quiet .github

workflows:      ## the forge's workflows, beyond what lint says of them: pip install '.[workflows]'
	actionlint

types:          ## types, strictly
	mypy

format:         ## bring Python and C into their format
	ruff check --fix .
	ruff format .
	clang-format -i $(SOURCES_IN_C)

structure:      ## circles of imports, looks behind underscores, long signatures, lines: each against its limit
	python tools/structure.py

examples:       ## the examples, with fewer epochs
	pip install -e '.[examples]'
	pytest tests/test_examples.py

docs:           ## the documentation, with what the examples print and draw: open docs/_build/html/index.html
	pip install -e '.[docs,examples,torch]'
	sphinx-build -W -n docs docs/_build/html

docs-quick:     ## the same, without running examples that are new or changed
	pip install -e '.[docs,torch]' # whose classes elman.torch's are
	sphinx-build -W -n -t quick docs docs/_build/html

pictures:       ## those of the documentation's first page, from the plots of two examples
	pip install -e '.[examples]'
	python tools/pictures.py

bench:          ## speed, beside PyTorch and JAX if they are installed: docs/performance.md
	elman bench --set table

bench-compare:  ## the same cases, against what `pytest bench/ --benchmark-save=NAME` kept
	pytest bench/ --benchmark-compare

bench-bridges:  ## what elman.sklearn adds to SequenceModel; a PyTorch model with elman.torch, and its parts
	python bench/sklearn_overhead.py
	python bench/torch_model.py

accuracy:       ## activations over all 2^32 inputs: too long for CI
	elman accuracy --stride 1

fuzz:           ## random calls, on all backends, from SEED for SECONDS; ELMAN_ISA=avx2 for another instruction set
	python tests/fuzz.py $(SEED) $(SECONDS)

fuzz-files:     ## damaged and hostile files from SEED, as many as INPUTS
	python tests/fuzz_files.py $(SEED) 9999 --inputs $(INPUTS)

kill:           ## trainings that are killed KILLS times, from SEED, and how many of them hit a save
	python tests/kill.py $(SEED) $(KILLS)

sanitize:       ## under the sanitizers: kernels, fuzzer, pool, extension
	SEED=$(SEED) bash tests/sanitize.sh

wheels:         ## for all platforms, into dist/; and what can run here of them
	pip install '.[wheels]'
	python tools/wheels.py
	bash tests/wheels.sh dist linux-x86_64 python3.13 python3.14 linux-aarch64 windows-x86_64

aarch64:        ## the kernels on aarch64 under an emulator: the same bits as on x86-64
	bash tests/aarch64.sh

compilers:      ## the extension with each compiler that is installed, and its kernels' tests
	bash tests/compilers.sh $(COMPILERS)

floors:         ## the tests with the lowest versions of what elman needs, and with the newest
	bash tests/floors.sh

ci:             ## all that must hold before anything lands, in fresh environments
	.ci/run
