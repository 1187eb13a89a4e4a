# Every task of the project. `make demo` and `make test` need python3, pip and make; nothing else by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q
ARGS ?=
.DEFAULT_GOAL := help
.PHONY: help demo test unit soak focus-validator lint format up down status bench bench-full docs lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.runtime: requirements.lock
	@sh deploy/make-venv.sh "$(PYTHON)" "$(VENV)" requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock
	@sh deploy/make-venv.sh "$(PYTHON)" "$(VENV)" requirements-dev.lock
	@touch $(VENV)/.runtime $@

demo: $(VENV)/.runtime ## Run the main job: a month of 20,000 calls, billed, settled and audited (ARGS="--seed 7 --trace FILE")
	@$(BIN)/tokengrid demo $(ARGS)

test: $(VENV)/.dev ## Install what is needed and run all tests
	@$(BIN)/python -m tokengrid.servers.install
	-@$(BIN)/python -m tokengrid.servers.install java
	@$(MAKE) --no-print-directory --jobs=4 --keep-going --output-sync=target test-units \
		test-servers-to-m test-servers-from-n test-whole

# Four runs side by side, each with servers of its own: three of them wait for other processes most of the time. All draw
# from one seed. Those that talk to servers are parted by their names' first letter, so that each file is in one run.
export TOKENGRID_TEST_SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
.PHONY: test-units test-servers-to-m test-servers-from-n test-whole
test-units: $(VENV)/.dev
	@$(PYTEST) tests/unit tests/conformance $(ARGS)

test-servers-to-m: $(VENV)/.dev
	@$(PYTEST) tests/integration --ignore-glob='*/test_[n-z]*' $(ARGS)

test-servers-from-n: $(VENV)/.dev
	@$(PYTEST) tests/integration --ignore-glob='*/test_[a-m]*' $(ARGS)

test-whole: $(VENV)/.dev
	@$(PYTEST) tests/simulation tests/e2e $(ARGS)

unit: $(VENV)/.dev ## Run the fast tests only: no servers, no demo
	@$(PYTEST) tests/unit tests/conformance $(ARGS)

soak: $(VENV)/.dev ## Run simulation, properties and fuzzing at length, and kill -9 in turn (TOKENGRID_SOAK_SEEDS, _ACTIONS, _KILLS)
	@TOKENGRID_SOAK_SEEDS=$${TOKENGRID_SOAK_SEEDS:-5000} TOKENGRID_SOAK_KILLS=$${TOKENGRID_SOAK_KILLS:-48} \
		TOKENGRID_SOAK_ACTIONS=$${TOKENGRID_SOAK_ACTIONS:-20} \
		$(BIN)/python -m pytest -q -x tests/simulation tests/unit/test_quota_properties.py \
		tests/unit/test_quota_fuzz.py tests/e2e/test_kills.py \
		tests/e2e/test_demo_embedded.py::test_a_whole_published_trace_runs_in_bounded_memory $(ARGS)

focus-validator: $(VENV)/.dev ## Ask the FOCUS project's validator of our files (ARGS="FILE..."); needs Python 3.12, exits 3 without
	@sh deploy/focus-validator.sh $(ARGS)

lint: $(VENV)/.dev ## Formatting, linter, types, import contract, stale documentation
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tokengrid.reference --check

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

up: $(VENV)/.runtime ## Start the production shape here: RabbitMQ, PostgreSQL, a process for each service
	@$(BIN)/tokengrid up $(ARGS)

down: $(VENV)/.runtime ## Stop all that `make up` started
	@$(BIN)/tokengrid down $(ARGS)

status: $(VENV)/.runtime ## Show what `make up` started
	@$(BIN)/tokengrid status $(ARGS)

bench: $(VENV)/.runtime ## Measure, as ratios within one run
	@$(BIN)/tokengrid bench $(ARGS)

bench-full: $(VENV)/.runtime ## Measure growth as well, to 10 million events: half an hour, 20 GB of disk
	@$(BIN)/tokengrid bench --full $(ARGS)

docs: $(VENV)/.dev ## Write docs/reference from the contracts
	@$(BIN)/python -m tokengrid.reference

lock: $(VENV)/.dev ## Pin the dependencies anew, with hashes
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## Remove the environment and all local state
	@rm -rf $(VENV) var .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
