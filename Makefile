# Needs Python 3.11 or newer and make, nothing else.
#   make demo                                   everything, on the bundled tiny checkpoint
#   make eval-refcoco CHECKPOINT=... DATA=...   one benchmark; eval-all for all of them
#   make test, make check                       the tests; lint, format, types

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEVICE ?= auto
DTYPE  ?= auto
OUT    ?= runs/$(notdir $(patsubst %/,%,$(CHECKPOINT)))-$*

.PHONY: demo test check format clean

demo: $(VENV)/installed
	$(BIN)/qwen-vl-eval demo --data demo-data --out demo-run

eval-%: $(VENV)/installed
	@test -n "$(CHECKPOINT)" || { echo "make $@: CHECKPOINT=folder or hub id is missing" >&2; exit 2; }
	@test -n "$(DATA)" || { echo "make $@: DATA=folder of the benchmarks' files is missing" >&2; exit 2; }
	$(BIN)/qwen-vl-eval run $* --model "$(CHECKPOINT)" --data "$(DATA)" --out "$(OUT)" \
	  --device $(DEVICE) --dtype $(DTYPE) $(if $(LIMIT),--limit $(LIMIT))

test: $(VENV)/installed-dev
	$(BIN)/pytest -n 2 --dist loadfile

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_imports.py tests/test_docs.py

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo-data demo-run .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e .
	touch $@

# dashscope carries Qwen's published vocabulary; what it depends on is not needed.
$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --disable-pip-version-check -q --no-deps 'dashscope>=2.0.2,<2.1'
	touch $@
