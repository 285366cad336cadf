# All of it works as anyone where nginx and Python are installed, and as root on a bare Debian or
# Ubuntu, too. A second run finds everything done.

PYTHON ?= python3
BIN = .venv/bin
ONCE ?=
ARGS ?=

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1	\2/p' Makefile | expand -t 10

.PHONY: demo
demo: system .venv/package ## Show it: a CA, nginx-acme on a small site, a verified answer (ONCE=1: then end)
	@ONCE=$(ONCE) exec $(BIN)/python -u -m tests.demo

.PHONY: test
test: system check releases ## Install what is missing and run every test
	$(BIN)/pytest -n 2 --dist loadgroup --cov

.PHONY: bench
bench: releases .venv/package ## Measure what it costs beside bare nginx (ARGS="--only warm --servers 1,1000", "--help")
	@$(BIN)/python -u -m tests.bench $(ARGS)

.PHONY: check
check: venv ## Look at format, lint, types and layers
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: venv
venv: .venv/tools ## Make .venv, with the package and the tools in their pinned versions

.PHONY: system
system: ## Install nginx, pebble and Python's venv from the distribution, where missing (root)
	@.ci/system

.PHONY: releases
releases: | system ## Unpack other releases' nginx, and a newer pebble, for the tests, without installing them
	@tests/releases.sh || [ "$$CI" != true ]

.PHONY: lock
lock: ## Pin the newest versions of everything
	rm -rf .cache/lock && $(PYTHON) -m venv .cache/lock
	.cache/lock/bin/pip install --quiet .
	.cache/lock/bin/pip freeze --exclude nginx-acme >requirements.txt
	.cache/lock/bin/pip install --quiet '.[dev]'
	{ echo '-r ../requirements.txt' && .cache/lock/bin/pip freeze --exclude nginx-acme | \
		grep -vxFf requirements.txt; } >tests/requirements.txt
	rm -rf .cache/lock

.PHONY: clean
clean: ## Remove what the other targets made in this folder
	rm -rf .venv .cache .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache \
		.ruff_cache build dist *.egg-info
	find nginx_acme tests -name __pycache__ -prune -exec rm -rf {} +

# Editable by a plain path: the import hook that is the default would slow down every start.
.venv/package: requirements.txt pyproject.toml conf/nginx-acme | system
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --config-settings editable_mode=compat --editable .
	touch $@

.venv/tools: .venv/package tests/requirements.txt
	$(BIN)/pip install --quiet -r tests/requirements.txt
	touch $@
