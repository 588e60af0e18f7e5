# Tidegate. `make help` lists what there is; everything works in `.venv`, which `make setup` makes.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
WORKERS ?= 2
export PYTHON

.PHONY: help setup demo test test-slow test-postgres check format docs bench disasters gate-results sim-agree sim-compare breakit fuzz halt-load fault-load rolling-load lab deb lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## make .venv with everything for working on Tidegate
	@tools/setup dev

demo:  ## a fleet takes a good release and stops bad ones; ARGS="--exit" ends it with a verdict
	@tools/setup server
	@$(BIN)/tidegate demo $(ARGS)

test: setup  ## set up what is missing, then run every tier of tests but what is slow, file by file on two workers; WORKERS=0 for one after the other
	@tools/apt-needs
	@tools/setup moto
	$(BIN)/python tools/agent-alone
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile $(ARGS)

test-slow: setup  ## what takes minutes a test: the guides of operators carried out, whole installations, upgrades and failovers under load
	@tools/apt-needs
	@tools/setup moto
	$(BIN)/python -m pytest -m slow -n $(WORKERS) --dist loadfile $(ARGS)

test-postgres: setup  ## the store's contract and every suite of the server over PostgreSQL
	@tools/apt-needs
	nice $(BIN)/python -m pytest tests/contract tests/unit/server --store=postgres --timeout=600 -n $(WORKERS) --dist loadfile $(ARGS)

check: setup  ## format, lint, types, walls and generated pages; changes nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/docs --check
	$(BIN)/python tools/changelog --check

format: setup  ## put files into form
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: setup  ## write the generated reference pages anew
	$(BIN)/python tools/docs

bench: setup  ## measure, each figure beside a reference of the same run; ARGS=poll picks one
	$(BIN)/python bench/run $(ARGS)

sim-agree: setup  ## play scenarios with real agents and as arrays, and say whether they agree (a quarter of an hour); ARGS="--seeds 10"
	nice $(BIN)/tidegate sim agree examples/scenarios/agree/*.toml --jobs 2 $(ARGS)

disasters: setup  ## write docs/reference/disasters.md from the scenario files (minutes)
	nice $(BIN)/python tools/disasters

gate-results: setup  ## write docs/reference/gate-results.md: the gate beside its peers (hours; goes on where it stopped); ARGS="--jobs 2" or "--found"
	nice $(BIN)/python tools/gate-results $(ARGS)

sim-compare: setup  ## play random releases under the gate and its peers (hours; goes on where it stopped); ARGS="--draw 400 --half report --jobs 2"
	nice $(BIN)/tidegate sim compare $(ARGS)

breakit: setup  ## apply each patch of tests/breakit and see its tests turn red
	@tools/apt-needs
	@tools/setup moto
	$(BIN)/python tools/breakit $(ARGS)

lab: setup  ## boot real loaders and the real agent in QEMU, and cut their power; ARGS="-k panic" or "--seed 7" picks
	@tools/apt-needs lab
	nice $(BIN)/python -m pytest tests/qemu -n $$(($$(nproc) + 1)) --dist loadscope --no-loadscope-reorder $(ARGS)

halt-load: setup  ## halt a rollout a hundred times while 5,000 devices ask three server processes, and count who goes past it
	nice $(BIN)/python -m tests.e2e.halts $(ARGS)

fault-load: setup  ## kill replicas and their PostgreSQL, cut the network and fill the disk under load, and count what was lost (ten minutes)
	@tools/apt-needs
	nice $(BIN)/python -m tests.e2e.faults $(ARGS)

rolling-load: setup  ## replace replicas of the version before by this one under load, and count what was lost (minutes); ARGS="--store sqlite" picks
	@tools/apt-needs
	nice $(BIN)/python -m tests.e2e.rolling $(ARGS)

lab-breakit: setup  ## break loader and agent on purpose and see the boot lab turn red (half an hour)
	@tools/apt-needs lab
	nice $(BIN)/python tools/breakit --lab $(ARGS)

fuzz:  ## give every parser an hour of damage in all (coverage-guided); ARGS="--seconds 60 bundle" picks
	@tools/setup fuzz
	nice $(BIN)/python fuzz/run $(ARGS)

deb:  ## build the Debian package of the device's side into dist/
	@tools/deb

lock:  ## pin all dependencies anew, with hashes
	@tools/lock

clean:  ## remove everything that can be made again
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find src tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} +
