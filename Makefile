.DEFAULT_GOAL := help
PYTHON ?= python3
CORES ?= 2
PROFILE ?= quick
ARGS ?=
BIN := .venv/bin

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (once, some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[paper]'
	@touch $@

.venv/.installed-test: .venv/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,eht]'
	@touch $@

.PHONY: figures wide paper publish store records test test-all lines test-interop test-browser fuzz kills train weights api rows explore lab clean check-env help

figures: .venv/.installed  ## every table and figure, quick profile, into build/quick (minutes)
	@$(BIN)/python -m fusionlib.paper.run quick --cores $(CORES) $(ARGS)

wide: .venv/.installed  ## chapter 03 with 300 labels and 200 images, into build/wide (three hours; resumes)
	@$(BIN)/python -m fusionlib.paper.run wide --cores $(CORES) $(ARGS)

paper: .venv/.installed  ## the same at the size of the paper, into build/paper (hours; resumes)
	@$(BIN)/python -m fusionlib.paper.run paper --cores $(CORES) $(ARGS)

publish: .venv/.installed  ## copy a finished run into figures/, notebooks/ and README.md (PROFILE=quick)
	@$(BIN)/python -m fusionlib.paper.publish $(PROFILE)

store: .venv/.installed  ## pack the records computed so far into figures/scores, to be committed
	@$(BIN)/python -m fusionlib.paper.publish --pack

records: .venv/.installed  ## which records a profile lacks, and which ship that none wants (PROFILE=quick)
	@$(BIN)/python -m fusionlib.paper.publish $(PROFILE) --list

test: .venv/.installed-test  ## lint, types, tests and every chapter in the smoke profile
	@$(BIN)/ruff check --quiet fusionlib tests notebooks
	@$(BIN)/ruff format --quiet --check fusionlib tests notebooks
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: test test-interop test-browser  ## everything, with what is slow and rare
	@$(BIN)/python -m pytest -m slow

lines: .venv/.installed  ## lines of code, by package
	@find fusionlib -name '*.py' | xargs wc -l | awk '{split($$2, p, "/"); n[p[2]] += $$1} END {for (k in n) print n[k], k}' | sort -n

test-interop:  ## our priors in deepinv and InverseBench, theirs and diffusers' in ours, published weights in their own runtimes (an environment of its own)
	@test -x .venv-interop/bin/python || $(PYTHON) -m venv .venv-interop
	@.venv-interop/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[paper]' pytest
	@.venv-interop/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt deepinv==0.5.0 diffusers==0.42.1
	@.venv-interop/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt ncnn==1.0.20261020 scico==0.0.7 galaxygrad==0.2.1
	@.venv-interop/bin/python -m pytest tests/interop

test-browser:  ## the explorer in headless Chromium, as a page and in JupyterLab (needs chromium, chromedriver)
	@test -x .venv-interop/bin/python || $(PYTHON) -m venv .venv-interop
	@.venv-interop/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[explore]' pytest selenium==4.51.0
	@.venv-interop/bin/python -m pytest tests/browser

fuzz: .venv/.installed-test  ## 500 mutated inputs, each of which must end in a result or a one-line error (a minute)
	@$(BIN)/python tests/campaigns/fuzz.py $(ARGS)

kills: .venv/.installed-test  ## kill a run fifty times, and compare its tables with those of one that nobody disturbed (20 min)
	@$(BIN)/python tests/campaigns/kills.py $(ARGS)

train: .venv/.installed  ## train our own priors anew into build/training (over an hour on two cores; resumes)
	@$(BIN)/python -m fusionlib.priors.training torus galaxies unet_galaxies digits faces sr local_torus local_photographs sky

weights:  ## ship what `make train` made: copy it into fusionlib/priors/weights
	@cp -v build/training/*.safetensors fusionlib/priors/weights/

api: .venv/.installed  ## the public functions from their docstrings, as pages in build/api
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@$(BIN)/pdoc --docformat restructuredtext --math --output-directory build/api fusionlib '!fusionlib.paper' '!fusionlib.explorer'
	@echo "build/api/index.html"

rows: .venv/.installed-test  ## which test checks which row of what the two essays name
	@$(BIN)/python -m pytest --rows

explore: .venv/.installed  ## the explorer as a page in the browser, for this machine alone
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[explore]'
	@mkdir -p build
	@test -e build/explorer.ipynb -a build/explorer.ipynb -nt notebooks/14_explorer.py || $(BIN)/jupytext --quiet --to ipynb --set-kernel python3 --output build/explorer.ipynb notebooks/14_explorer.py
	@$(BIN)/voila build/explorer.ipynb --Voila.ip=127.0.0.1

lab: .venv/.installed  ## open the chapters in JupyterLab (right click, Open With, Notebook)
	@$(BIN)/jupyter lab notebooks

clean:  ## remove build/, what was computed here
	rm -rf build

check-env: .venv/.installed  ## is everything there?
	@$(BIN)/python -m fusionlib.paper.check_env

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 12
