# make serve · make test · make check · make fix: the same every day, each prints what it runs.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
ENVS ?= $(patsubst tests/clients/%.txt,%,$(wildcard tests/clients/*.txt)) \
	$(patsubst tests/clients/node/%/package.json,%,$(wildcard tests/clients/node/*/package.json))
CLIENTS = $(foreach env,$(ENVS),.$(if $(wildcard tests/clients/$(env).txt),venv,node)-clients-$(env)/.installed)

.DEFAULT_GOAL := help
.PHONY: help install serve test test-slow test-clients test-extras fuzz check fix bench bench-peers

help:
	@echo "make serve      the gateway over models/"
	@echo "make test       all tests but the slow ones (ARGS='-k name'), in parallel (WORKERS=0: in one process)"
	@echo "make test-slow  the slow ones"
	@echo "make test-clients  the clients of the field, in environments of their own (ENVS=openai2 ARGS='-k litellm')"
	@echo "make test-extras   each framework's extra alone, in environments of their own (EXTRAS='onnx spacy')"
	@echo "make fuzz       requests made from the API document, valid and broken"
	@echo "make check      format, lint, types, import directions"
	@echo "make fix        format, and mend what lint can mend"
	@echo "make bench      what we claim about speed, measured"
	@echo "make bench-peers  the same beside other servers, in environments of their own (PEERS='mosec truss')"
	@echo "make test-chaos what it survives: kills, signals, reloads and overload under load, with a ledger"
	@echo "make soak       a mixed load for MINUTES=5, and what grows meanwhile"
	@echo "make install    .venv with everything that these need; the others do it themselves"

install: $(INSTALLED)

# torch first and alone: the largest download is not repeated when something else fails.
$(INSTALLED): pyproject.toml constraints.txt requirements-demo.txt requirements-frameworks.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[all,dev]'
	$(BIN)/python -m pip install --no-deps -r requirements-demo.txt -r requirements-frameworks.txt
	touch $@

serve: $(INSTALLED)
	$(BIN)/gateway serve --models models/ $(ARGS)

# One worker for each core, but not more than four: each imports torch and may take 1.5 GB. Tests of one file share the
# gateways that they start, so a file is never split. They start hundreds of processes: those compile nothing twice,
# also where the environment forbids Python to keep what it compiles, as in many containers.
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))
test: export PYTHONDONTWRITEBYTECODE =
test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow" $(ARGS)

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow $(ARGS)

# Clients exclude each other's packages: tests/clients/NAME.txt pins those of one environment for Python,
# tests/clients/node/NAME/package.json those of one for Node. ENVS='NAME …' makes and runs some of them.
.venv-clients-%/.installed: tests/clients/%.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -r $<
	touch $@

.node-clients-%/.installed: tests/clients/node/%/package.json
	mkdir -p $(@D)
	cp $< $(@D)
	cd $(@D) && npm install --no-package-lock --no-audit --no-fund
	touch $@

test-clients: $(INSTALLED) $(CLIENTS)
	$(BIN)/python -m tests.clients $(ENVS) -- $(ARGS)

EXTRAS ?=
test-extras: $(INSTALLED)
	$(BIN)/python -m tests.extras $(EXTRAS)

# In an environment of its own, for schemathesis is a plugin of pytest too.
.venv-fuzz/.installed: tests/fuzz/requirements.txt constraints.txt
	test -x .venv-fuzz/bin/python || $(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/python -m pip install -c constraints.txt -r tests/fuzz/requirements.txt
	touch $@

fuzz: $(INSTALLED) .venv-fuzz/.installed
	$(BIN)/python -m tests.fuzz $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_import_directions.py

fix: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks $(ARGS)

# The requirements of other servers exclude ours and each other's: benchmarks/peers/NAME.txt pins those of one.
# PEERS='NAME …' makes and measures some of them beside those that are there already.
PEERS ?= $(patsubst benchmarks/peers/%.txt,%,$(wildcard benchmarks/peers/*.txt))
.venv-peers-%/.installed: benchmarks/peers/%.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -r $<
	touch $@

bench-peers: $(INSTALLED) $(foreach peer,$(PEERS),.venv-peers-$(peer)/.installed)
	$(BIN)/python -m benchmarks peers $(ARGS)

test-chaos: $(INSTALLED)
	$(BIN)/python -m benchmarks chaos signals reloads overload --strict $(ARGS)

MINUTES ?= 5
soak: $(INSTALLED)
	SOAK_MINUTES=$(MINUTES) $(BIN)/python -m benchmarks soak --strict $(ARGS)
