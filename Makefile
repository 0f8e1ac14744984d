# The commands of the project; `make help` lists them. Only python3 (3.11 or newer, with venv) and make are needed.
#   HOST= PORT= DEVICE=   where and on what `make serve` runs (default: 127.0.0.1, 8000, the best device there is)
#   PYTHON=               the interpreter that makes .venv (default: python3)
#   PIP_ARGS=             more arguments for pip, for example a mirror or a folder of wheels
#   PYTEST_ARGS=          more arguments for pytest, for example -k grid
#   BENCH_ARGS=           names and options of benchmarks, for example passes --compare

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := setup.py $(wildcard ccnet/native/*.h ccnet/native/*.cpp)

.DEFAULT_GOAL := help
.PHONY: setup serve test test-all lint format bench docker-smoke lock wheels clean help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

setup: $(STAMP) ## .venv with everything that running and testing needs

# The stamp is touched last, so an installation that was interrupted is taken up again.
$(STAMP): pyproject.toml requirements.lock $(NATIVE)
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "'$(PYTHON)' was not found. ccnet needs Python 3.11 or newer: install it, or name one with PYTHON=." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "'$(PYTHON)' is $$("$(PYTHON)" --version 2>&1). ccnet needs Python 3.11 or newer: name one with PYTHON=." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) --requirement requirements.lock
	@rm -f ccnet/native/_kernels*.so  # or a build that fails would leave those of older sources
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'import ccnet.native as native; found = native.kernels(); print("native kernels:", \
		f"built, with {found.instruction_set} on this processor" if found else f"none, the slower torch paths run: {native.why_missing()}: make --always-make setup")'
	@touch $@

serve: $(STAMP) ## start the service with the shipped checkpoint (HOST= PORT= DEVICE=)
	@OMP_WAIT_POLICY="$${OMP_WAIT_POLICY:-PASSIVE}" exec $(BIN)/ccnet serve $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(if $(DEVICE),--device $(DEVICE))

test: $(STAMP) ## the test suite, but for what takes minutes
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-all: $(STAMP) ## the whole test suite, the slow part included
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP) ## format, lint, types and import walls, checked
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## format and mend what can be mended by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP) ## speed and memory beside plain convolutions (BENCH_ARGS=, for example --quick)
	$(BIN)/ccnet bench $(BENCH_ARGS)

docker-smoke: $(STAMP) ## build the image, bring the compose file up, drive it over HTTP, take it down
	$(BIN)/python deploy/smoke.py

lock: $(STAMP) ## solve requirements.lock again for pyproject.toml, keeping the versions that still fit
	$(BIN)/pip-compile --quiet --all-extras --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --no-emit-options --no-header --annotation-style=line --output-file=requirements.lock pyproject.toml
	@sed -i -e 's/+cpu//' -e '1i # Every version that is tested. Made by `make lock` from pyproject.toml; edit that, not this.\n# No hashes and no "+cpu": the same lock takes the CPU build of torch or the CUDA one, which pins its own libraries.' requirements.lock

wheels: $(STAMP) ## fill deploy/wheels, from which the image is then built without a network
	rm -f deploy/wheels/*.whl
	$(BIN)/python deploy/requirements.py service > deploy/wheels/requirements.txt
	$(BIN)/python -m pip wheel --quiet $(PIP_ARGS) --wheel-dir deploy/wheels --constraint requirements.lock \
		--requirement deploy/wheels/requirements.txt

clean: ## remove .venv, caches and build leftovers; checkpoints and runs stay
	rm -rf $(VENV) ccnet/native/_kernels*.so build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
