# Needs Python >= 3.10 with its venv module, and nothing else. `make` lists the targets.
# Another Python: `make demo PYTHON=python3.12` (`make clean` first if there is a .venv already).

PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin

# LightGBM asks for the system's libgomp.so.1, which a bare Debian lacks (apt-get install libgomp1).
# scikit-learn's wheel carries a copy; where the system has none, the recipe of .venv lends that one.
export LD_LIBRARY_PATH := $(CURDIR)/.venv/lib$(if $(LD_LIBRARY_PATH),:$(LD_LIBRARY_PATH))

# Tests fit many small models: threads of BLAS would wait for one another, the more so on a busy machine.
test nightly: export OPENBLAS_NUM_THREADS ?= 1

# A process for each core, and each file's tests in one of them. `make test IN_PARALLEL=` is one after the other.
IN_PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test nightly lint types layers check constraints screenshots clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: .venv/.installed ## The whole loop on real training runs, in under 2 minutes
	@$(BIN)/mlflow-meta demo

test: .venv/.installed ## Every test; e.g. make test PYTEST_ARGS="-k plugin"
	@$(BIN)/python -m pytest $(IN_PARALLEL) $(PYTEST_ARGS)

nightly: .venv/.installed ## Long versions: servers of older MLflow, 100 races and kills, 10 minutes of faults
	@$(BIN)/python -m pytest --nightly -m nightly $(PYTEST_ARGS)
	@$(BIN)/python -m pytest --nightly tests/integration $(PYTEST_ARGS)

lint: .venv/.installed ## ruff: rules and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/.installed ## mypy, strict
	@$(BIN)/mypy

layers: .venv/.installed ## import-linter: who may import whom
	@$(BIN)/lint-imports

check: lint types layers ## lint, types and layers

screenshots: .venv/.installed ## Run the demo, and take README's pictures and its output from it (needs Chromium)
	@rm -rf build/demo && mkdir -p build
	@$(BIN)/mlflow-meta demo --folder build/demo > build/demo.txt
	@$(BIN)/mlflow-meta train --metric val_loss --tracking-uri sqlite:///$(CURDIR)/build/demo/mlflow.db
	@$(BIN)/mlflow-meta suggest -e demo-digits --seed 0 --tracking-uri sqlite:///$(CURDIR)/build/demo/mlflow.db
	@$(BIN)/python tests/screenshots.py --store sqlite:///$(CURDIR)/build/demo/mlflow.db --experiment demo-digits --output build/demo.txt

constraints: ## Write constraints.txt anew, with the newest versions that fit
	@$(python_is_fit)
	@echo "Resolving into a fresh environment: takes some minutes."
	@env=$$(mktemp -d) && trap 'rm -rf "$$env"' EXIT && trap 'exit 130' INT TERM \
	&& $(PYTHON) -m venv "$$env" \
	&& "$$env/bin/python" -m pip install -q --disable-pip-version-check -e '.[dev]' \
	&& "$$env/bin/python" -m pip freeze --exclude-editable > "$$env/frozen" \
	&& { echo "# What CI tests, of all extras. Made by \`make constraints\`; below 3.11 pyproject.toml alone decides (pandas 3)." \
	     && sed 's/$$/ ; python_version >= "3.11"/' "$$env/frozen"; } > "$$env/new" \
	&& cp "$$env/new" constraints.txt

clean: ## Remove .venv and what the tools leave behind
	@rm -rf .venv build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find mlflow_meta tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is removed first and written last: an install that was cut short starts from nothing the next time.
.venv/.installed: pyproject.toml constraints.txt
	@$(python_is_fit)
	@echo "Setting up .venv with $(PYTHON): takes about a minute, and only when pyproject.toml or constraints.txt is new."
	@if [ ! -e $@ ] || ! $(BIN)/python -c '' 2>/dev/null; then $(PYTHON) -m venv --clear .venv; fi
	@rm -f $@
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@[ "$$(uname)" != Linux ] || $(BIN)/python -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null \
	|| (cd .venv/lib && ln -sf python3*/site-packages/scikit_learn.libs/libgomp-*.so.* libgomp.so.1)
	@touch $@

define python_is_fit
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
  echo "mlflow-meta needs Python 3.10 or newer, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 | head -n 1). Name another: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12" >&2; exit 1; }; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
  echo "'$(PYTHON)' lacks its venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
endef
