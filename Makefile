# make demo: a fresh machine to a table, pictures and a best checkpoint. make test, make check.
PYTHON ?= python3
BIN := .venv/bin
# The real data, where a clone of them lies: tests that need them then run.
HW5 := $(firstword $(wildcard data/GenAI-Hw5 ../shared/data/GenAI-Hw5))
ifneq ($(HW5),)
export TANGEVAL_DATA ?= $(abspath $(HW5))
endif

.PHONY: demo test check bench format clean

.venv/installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

demo: .venv/installed
	$(BIN)/python -m finetune finetune/configs/demo.yaml
	$(BIN)/tangeval run studies/quickstart.yaml

test: .venv/installed
	$(BIN)/python -m pytest

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed
	$(BIN)/python -m benchmarks.decode

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist *.egg-info
