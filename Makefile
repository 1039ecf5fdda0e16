# Two commands for a newcomer: `make demo` and `make test`. Each sets everything up first.

PYTHON ?= python3
# The CPU build is all that Genwright needs. Where the plain registry's build brings gigabytes of CUDA that you do not
# want, point TORCH_INDEX at PyTorch's index of CPU builds, or install torch into .venv yourself beforehand.
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2  # processes that test side by side, a thread each
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(strip $(WORKERS)) --dist loadfile
RECIPE := recipes/text/aws_assistant.yaml
RUN := runs/aws_assistant
ASK := "Create an IAM user named Bob"
CARDS := smollm2-135m-instruct hibari kokoro-82m whisper-base opennsfw upscale-fast efficientnet-lite0 all-minilm-l6-v2 dnsmos emoji icons

.PHONY: demo test check quick clients lint types docs setup setup-dev clean lock

demo: setup  ## your data to a served model: the whole product in a few minutes
	$(BIN)/genwright models pull general-prose-en || true  # the fixed set on which forgetting is measured
	$(BIN)/genwright models pull general-trivia-en
	$(BIN)/genwright run $(RECIPE) --out $(RUN)
	@if [ -t 0 ] && [ -t 1 ]; then $(BIN)/genwright chat $(RUN); else \
	  echo; echo "> "$(ASK); $(BIN)/genwright chat $(RUN) --once $(ASK); fi
	@echo; echo "Next: $(BIN)/genwright serve $(RUN)   — OpenAI's API on http://127.0.0.1:8484/v1"

test: setup-dev  ## all tests, on real weights too
	for card in $(CARDS); do $(BIN)/genwright models pull $$card || exit 1; done
	for card in soundfont-gm speech-prompts-en; do $(BIN)/genwright models pull $$card || true; done  # of Debian's
	GENWRIGHT_TEST_WEIGHTS=1 $(PYTEST) --ignore tests/server
	GENWRIGHT_TEST_WEIGHTS=1 $(BIN)/python -m pytest tests/server  # alone: it measures times

clients: setup-dev  ## other people's clients against our server (needs Node 20 for the JavaScript one)
	tests/clients/run.sh

check: lint types docs quick  ## before every commit; CI runs all of `make test`

quick: setup-dev  ## all tests that need no weights fetched
	$(PYTEST) --ignore tests/server
	$(BIN)/python -m pytest tests/server

lint: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup-dev
	$(BIN)/mypy

docs: setup-dev  ## the reference page is a generated copy; this says when it is stale
	$(BIN)/python -m genwright.cli.reference --check docs/reference.md

setup: $(VENV)/.ready

setup-dev: $(VENV)/.ready-dev

# torch comes first and alone, so that nothing else decides which build arrives; the rest is pinned by hash.
$(VENV)/.ready: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Genwright needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/python -m pip install --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.lock
	$(BIN)/python -m pip install --no-deps --require-hashes -r requirements-dev.lock
	touch $@

clean:
	rm -rf $(VENV) runs build dist

lock:  ## pin everything but torch, with hashes, for every platform
	echo "torch ; python_version < '3'" > build-overrides.txt
	$(BIN)/python -m pip install --quiet uv
	$(call compile,requirements.lock,--extra text --extra serve --extra search --extra build)
	$(call compile,requirements-dev.lock,--all-extras --constraint requirements.lock)
	rm build-overrides.txt

compile = $(BIN)/uv pip compile pyproject.toml $(2) --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate --override build-overrides.txt --quiet --output-file $(1)
