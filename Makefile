# Tasks of this project. All of them need only make and Python 3.11 or later; the rest is installed
# into .venv in the versions of constraints.txt. Another Python: make setup PYTHON=python3.12
#
# On Linux, PyPI's torch brings several GB of CUDA libraries. Without a GPU, let pip look at an index
# of CPU builds too: make setup PIP_EXTRA_INDEX_URL=...

PYTHON ?= python3
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

.PHONY: setup chat test check format build clean

setup: .venv/ready  ## install what the other tasks need, if that has changed

# Everything goes to stderr and nothing is read, so that `echo hi | make -s chat` is a clean pipe.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit( \
	    "rejoinder needs Python 3.11 or later, $(PYTHON) is " + sys.version.split()[0] + \
	    "; name another: make setup PYTHON=python3.12")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv </dev/null >&2
	@echo 'Installing into .venv; the first time this takes some minutes ...' >&2
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]' </dev/null >&2
	@touch $@
	@echo 'Ready.' >&2

chat: setup  ## talk to a model: make chat ARGS=...
	@$(BIN)/rejoinder chat $(ARGS)

test: setup  ## the quick tests, at most 4 minutes
	$(PYTEST) -m 'not slow'

check: setup  ## all that CI runs
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(PYTEST)

format: setup
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

build: setup  ## wheel and source archive in dist/, without a network
	$(BIN)/python -m build --no-isolation

clean:  ## all that was made, but for .venv
	rm -rf build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +
