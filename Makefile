# Two commands matter: make demo (the main job, offline after set-up) and make test.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
BIN = $(VENV)/bin
JOBS ?= 2
# A pipe fails with its first part.
SHELL = /bin/bash
.SHELLFLAGS = -o pipefail -c
QUERIES = 灰猫 金毛 哈士奇 小猪 黑猫 熊猫 "a red car" "butterfly on a flower" 雪地 "a pig in the snow"

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PYTHONUTF8 = 1

.PHONY: demo test lint wheel clean

$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.extras-%: $(VENV)/.core
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$*]"
	touch $@

demo: $(VENV)/.core
	cd clip_retrieval && ../$(BIN)/python -m scripts.extract_embeddings --model tiny
	cd clip_retrieval && ../$(BIN)/python -m scripts.search_demo -k 3 $(QUERIES)
	cd clip_retrieval && ../$(BIN)/python -m scripts.image_to_text_demo -k 3 data/images/005.jpg
	tail -n 9 clip_retrieval/outputs/search_log.txt
	$(BIN)/soutu demo | tail -n 2

# What a contributor needs: minutes. All of it, as .ci/run does: make test MARKERS=
MARKERS = not slow and not browser and not ray and not milvus and not training
test: $(VENV)/.extras-$(EXTRAS)
	$(BIN)/python -m pytest -rs -n $(JOBS) --dist loadfile -m "$(MARKERS)"

# The types of the trainer are torch's, so checking them needs it.
lint: $(VENV)/.extras-dev,torch
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Build the wheel and try it as a stranger would: in a new environment, outside the checkout.
wheel: $(VENV)/.extras-$(EXTRAS)
	rm -rf dist build/wheel-venv
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	cd / && "$(CURDIR)/build/wheel-venv/bin/soutu" demo | tail -n 2

clean:
	rm -rf $(VENV) dist build clip_retrieval/outputs
