PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JAX_TESTS := tests/test_jaxlib_hazard.py tests/schemes tests/training/test_loop.py \
	tests/estimator/test_estimator.py tests/parallel/test_devices.py

.PHONY: demo test test-all test-jax lint format docs dist clean

demo: $(STAMP)
	$(BIN)/otflow demo --out demo

# the tests with lint beside them, and how long they took once everything is installed
timed = @start=$$(date +%s); $(MAKE) --no-print-directory lint & lint=$$!; $(1); status=$$?; \
	wait $$lint || { status=1; echo "make lint failed, see above"; }; \
	echo "make $@: $$(( $$(date +%s) - start )) seconds after installation"; exit $$status

test: $(STAMP)
	$(call timed,$(BIN)/python -m pytest)

test-all: $(STAMP)
	$(call timed,$(BIN)/python -m pytest -m '')

# what depends most on JAX: make test-jax PYTHON=python3.13 VENV=build/newest
test-jax: $(STAMP)
	$(BIN)/python -m pytest $(JAX_TESTS)

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# the wheel is built from the sdist, and tried where there is nothing else
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python tests/wheel.py dist constraints.txt

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "otflow needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache
