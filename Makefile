# Works on a machine with Python 3.11 to 3.13, make and a package index: the first target makes .venv and installs everything.
PYTHON ?= python3
PROFILE ?= demo
VENV := .venv
BIN := $(VENV)/bin
# compiled modules are kept: without them every process compiles torch and papermill anew, 24 s of CPU instead of 9; to compile
# the whole environment at installation would take 53 s once, what is imported takes 15
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install reproduce test weights lab bench readme figures docs lessons clean

# installed once, and again when the requirements change; uv only makes it faster
$(VENV)/.installed: settings.ini setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(0 if ok else 'Python 3.11 to 3.13 is needed, this is ' + sys.version.split()[0] + ': make PYTHON=python3.12')"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (torch with CUDA is several GB: minutes on a slow line)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv
	@$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[dev]' || $(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/.installed ## the environment .venv, and nothing else

reproduce: $(VENV)/.installed ## every table and figure of a profile, ending with the path of each paper's page
	@$(BIN)/radinet reproduce --profile $(PROFILE) $(ARGS)

test: $(VENV)/.installed ## notebooks clean and exported, lessons, tests, the smoke profile from end to end
	@$(BIN)/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder

weights: $(VENV)/.installed ## train the detectors of fracatlas and export them: make weights FRACATLAS=FOLDER
	@test -n "$(FRACATLAS)" || (echo "name the folder of FracAtlas: make weights FRACATLAS=FOLDER"; exit 2)
	$(BIN)/radinet reproduce --profile open --data fracatlas=$(FRACATLAS) --only fracatlas $(ARGS)
	$(BIN)/radinet export runs/open/fracatlas/detect/fold[0-9] $(or $(MODEL),runs/fracatlas-detector)

lab: $(VENV)/.installed ## read and edit the notebooks
	$(BIN)/jupyter lab nbs

bench: $(VENV)/.installed ## measure, and write benchmarks/*.json
	for f in benchmarks/*.py; do $(BIN)/python $$f || exit 1; done

readme: $(VENV)/.installed ## README.md from nbs/index.ipynb
	$(BIN)/jupyter nbconvert --to markdown --log-level WARN --output-dir . --output README nbs/index.ipynb

docs: $(VENV)/.installed ## the site: docs/_build/html/index.html
	@$(BIN)/python -c "import sphinx, myst_nb, furo" 2>/dev/null || $(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[docs]'
	$(BIN)/python docs/collect.py docs/_build/source
	$(BIN)/sphinx-build -q -W --keep-going -b html -c docs docs/_build/source docs/_build/html
	@echo docs/_build/html/index.html

lessons: $(VENV)/.installed ## run the lessons and keep their small outputs in the notebooks
	$(BIN)/python docs/outputs.py
	$(BIN)/nbdev-clean

figures: reproduce ## keep the tables, figures and records of the last run in the tree; of a real collection no radiograph
	$(BIN)/python -c "from radinet_nb.data.notebooks import paper_folders; from radinet_nb.results.kept import keep_results; \
	  from radinet_nb.workflow.papers import load_paper; \
	  keep_results('runs/$(PROFILE)', 'figures/$(PROFILE)', {o: load_paper(o).items for o in paper_folders()})"

clean: ## runs and build products; the environment stays
	rm -rf runs build dist *.egg-info .pytest_cache .ruff_cache
