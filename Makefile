# make demo: a fresh machine to a table, pictures and a best checkpoint. make test, make check.
PYTHON ?= python3
# What is installed: exact versions, or one of .ci/oldest.txt and .ci/newest.txt.
REQUIREMENTS ?= requirements.txt
BIN := .venv/bin
# The real data, where a clone of them lies: tests that need them then run.
HW5 := $(firstword $(wildcard data/GenAI-Hw5 ../shared/data/GenAI-Hw5))
ifneq ($(HW5),)
export TANGEVAL_DATA ?= $(abspath $(HW5))
endif

# torch without gigabytes of CUDA, where Linux has no NVIDIA driver and pip was told of no index or wheels of its own.
ifeq ($(shell uname),Linux)
ifeq ($(shell command -v nvidia-smi; $(PYTHON) -m pip config list 2>/dev/null | grep -E 'index-url|find-links'),)
CPU_WHEELS := --extra-index-url https://download.pytorch.org/whl/cpu
endif
endif
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: demo test soak matrix check bench reference dist docs format clean

# An environment of Python 3.11 or newer; one that is older, or was not finished, is made anew.
OLD := import sys; sys.exit(sys.version_info < (3, 11) and "Python %d.%d found; 3.11 or newer is needed: make PYTHON=python3.12 …" % sys.version_info[:2])
define environment
	@$(BIN)/python -c '$(OLD)' 2>/dev/null && $(BIN)/pip --version >/dev/null 2>&1 || { \
		$(PYTHON) -c '$(OLD)' && rm -rf .venv && { $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }; }; }
endef

# All of the developers' tools.
.venv/installed: $(REQUIREMENTS) pyproject.toml
	$(environment)
	$(PIP) -r $(REQUIREMENTS)
	$(PIP) --no-deps -e .
	touch $@

# What runs and trains, at the exact versions: no developers' tools. Where those are installed it is there already.
.venv/runs: pyproject.toml
	$(environment)
	@test -e .venv/installed || echo "downloading PyTorch and others$(if $(CPU_WHEELS), (for a CPU: no NVIDIA driver is here)): some 2 GB of disk in .venv, several more with CUDA"
	@test -e .venv/installed || $(PIP) -c requirements.txt $(CPU_WHEELS) -e '.[train]'
	@touch $@

demo: .venv/runs
	$(BIN)/tangeval demo

test: .venv/installed
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# SIGKILL at random moments of every command; a quarter of an hour.
soak: .venv/installed
	$(BIN)/python -m tests.soak

# Every type of adapter that peft has, and every causal-LM class of transformers: the table of docs/reliability.md; some minutes.
matrix: .venv/installed
	$(BIN)/python -m pytest -n auto -m matrix
	$(BIN)/python -m tests.matrix

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.sizes

bench: .venv/installed
	$(BIN)/python -m benchmarks.decode

# The reference results, on HW5's data: on one GPU, with `pip install -e '.[gemma]'`.
KNOBS := temperature top_k top_p max_length
GEMMA := base_model=gemma3-270m load.merge=true
reference: .venv/installed
	$(BIN)/python -m finetune.recipes finetune/configs/recipes.yaml
	$(BIN)/python -m finetune finetune/configs/gemma3-270m.yaml
	$(BIN)/python -m finetune finetune/configs/tang-mini-hw5.yaml
	$(BIN)/python -m finetune finetune/configs/recipes.yaml recipe=hw5 output_dir=checkpoints/seeds/hw5 seeds=1..5
	$(BIN)/python -m finetune finetune/configs/recipes.yaml records=1040 learning_rate=1e-3 warmup_steps=7 per_device_batch_size=16 output_dir=checkpoints/seeds/default seeds=1..5
	$(BIN)/python -m finetune finetune/configs/gemma3-270m.yaml output_dir=checkpoints/seeds/full seeds=1..5
	$(BIN)/tangeval run studies/recipes.yaml
	$(BIN)/tangeval run studies/seeds.yaml
	$(BIN)/tangeval run studies/gemma3-270m.yaml
	$(BIN)/tangeval run studies/tang-mini.yaml
	for knob in $(KNOBS); do \
		$(BIN)/tangeval run studies/$$knob.yaml name=gemma3-270m-$$knob $(GEMMA) checkpoints=checkpoints/gemma3-270m/checkpoint-453 && \
		$(BIN)/tangeval run studies/$$knob.yaml name=tang-mini-$$knob load.merge=true || exit 1; \
	done
	$(BIN)/python -m benchmarks.reference results/recipes results/gemma3-270m results/tang-mini \
		$(foreach knob,$(KNOBS),results/gemma3-270m-$(knob) results/tang-mini-$(knob))
	$(BIN)/python -m benchmarks.seeds results/seeds

# The wheel is made from the source archive, so that both are known to be whole.
dist: .venv/installed
	$(BIN)/python -m build --no-isolation

docs: .venv/installed
	# The keys of a study's grid are made from the list of knobs: no line of source has them.
	$(BIN)/python -W error -W "ignore:Cannot determine where tangeval.core.study.Decoding" -m pdoc --docformat google --no-show-source -o build/docs tangeval

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist *.egg-info
