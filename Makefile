# Everything a person or a CI machine does with this repository. Needs make and Python 3.10 or newer.

PYTHON ?= python3
PINS ?= airflow-3.3
OUTCOME ?= approve
TESTS ?=
TAG ?=
LINES ?=
DEPTH ?= half
JOBS ?= 2
INTERLEAVINGS ?= 100000
HISTORIES ?= 100000
COMBINATIONS ?= 200
SOAK_MINUTES ?= 30
FUZZ_SECONDS ?= 600
FUZZ_SEED ?= 0
FUZZ ?=
BASE ?= HEAD
MUTANTS ?=

BIN := .venv/bin
CONSTRAINTS := constraints/$(PINS).txt
STAMP := .venv/.ready-$(PINS)
HA_STAMP := .venv/.ready-ha-$(PINS)
BROWSER_STAMP := .venv/.ready-browser-$(PINS)
FUZZ_STAMP := .venv/.ready-fuzz-$(PINS)
NEXT_BIN := .venv-next/bin
NEXT_CONSTRAINTS := constraints/airflow-3.4.txt
NEXT_STAMP := .venv-next/.ready
QUALITY_STAMP := .venv/.ready-quality-$(PINS)
DOCS_STAMP := .venv/.ready-docs-$(PINS)
RELEASE_STAMP := .venv/.ready-release-$(PINS)
CODE := $(wildcard airflow_provider_astrobpm tests example_dags scripts benchmarks hatch_build.py)

.DEFAULT_GOAL := help
.PHONY: help env lint format test test-deployment test-browser test-crash test-ha test-next test-interleavings test-histories test-combinations docs bench bench-waiting bench-batch bench-gate bench-compare bench-faults bench-tokens demo up newcomer pictures build release-check constraints clean coverage mutation bench-scale soak fuzz test-matrix

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP)  ## Create .venv with the pinned set PINS, a file name in constraints/

# Always from empty: a set of pins never mixes with what another set left behind.
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@echo "Creating .venv from $(CONSTRAINTS) ..."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint $(CONSTRAINTS) uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable . --group dev \
		--constraints $(CONSTRAINTS) --build-constraints $(CONSTRAINTS)
	@touch $@

lint: $(BROWSER_STAMP)  ## Style, formatting, types, and which room may import which
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary $(CODE)
	@$(BIN)/lint-imports --no-cache >/dev/null || { $(BIN)/lint-imports --no-cache; exit 1; }
	@echo "lint: nothing to report"

format: $(STAMP)  ## Rewrite the code in the project's format
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format .

test: $(BROWSER_STAMP)  ## Run the tests (TESTS="-k poller" passes arguments to pytest)
	@TEST_RUN_LIMIT_SECONDS=$(if $(TESTS),,360) $(BIN)/pytest -n auto --dist worksteal -q $(TESTS)

test-deployment: $(BROWSER_STAMP) $(HA_STAMP)  ## Run the tests against an Airflow of several processes, on PostgreSQL (needs Debian, takes TESTS too)
	@$(BIN)/pytest -m deployment -n 0 -q tests/deployment $(TESTS)

test-browser: $(BROWSER_STAMP)  ## Run the tests of the emulator's page in a browser (needs Debian, takes TESTS too)
	@$(BIN)/pytest -m browser -n 0 -q tests/browser $(TESTS)

# Only the tests of deployments, the matrix and the soak need PostgreSQL's drivers and Celery.
$(HA_STAMP): $(STAMP)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group ha --constraints $(CONSTRAINTS)
	@touch $@

$(BROWSER_STAMP): $(STAMP)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group browser --constraints $(CONSTRAINTS)
	@touch $@

$(QUALITY_STAMP): $(BROWSER_STAMP)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group quality --constraints $(CONSTRAINTS)
	@touch $@

$(FUZZ_STAMP): $(STAMP)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group fuzz --constraints $(CONSTRAINTS)
	@touch $@

$(DOCS_STAMP): $(STAMP)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group docs --constraints $(CONSTRAINTS)
	@touch $@

$(RELEASE_STAMP): $(STAMP)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group release --constraints $(CONSTRAINTS)
	@touch $@

test-crash: $(HA_STAMP)  ## Kill tasks at every point of a start and its wait, on PostgreSQL (needs Debian, takes TESTS too)
	@$(BIN)/pytest -m crash -n 0 -q tests/crash $(TESTS)

test-ha: $(HA_STAMP)  ## Kill a worker and a triggerer of an Airflow with Celery, Redis and PostgreSQL, and show that odd texts kill none (needs Debian)
	@$(BIN)/pytest -m ha -n 0 -q tests/ha $(TESTS)

# A pre-release beside .venv, which needs Python 3.11 or newer.
$(NEXT_STAMP): pyproject.toml $(NEXT_CONSTRAINTS) | $(STAMP)
	@echo "Creating .venv-next from $(NEXT_CONSTRAINTS) ..."
	@$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-next
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(NEXT_BIN)/python --editable . --group dev \
		--constraints $(NEXT_CONSTRAINTS) --build-constraints $(NEXT_CONSTRAINTS)
	@touch $@

test-next: $(NEXT_STAMP)  ## Run the tests of the next Airflow, a pre-release, in an environment of its own (takes TESTS too)
	@$(NEXT_BIN)/pytest -m next -n 0 -q tests/next $(TESTS)

test-matrix: $(HA_STAMP)  ## Run the wheel on every line of Airflow (LINES="3.0 3.4=smoke" chooses, DEPTH=smoke for less), and write docs/versions.md (needs Debian)
	@PYTHONPATH=.:scripts $(BIN)/python -m tests.matrix --depth $(DEPTH) --jobs $(JOBS) $(LINES)

test-interleavings: $(STAMP)  ## Run the poller through 100000 random interleavings (INTERLEAVINGS=n for another number)
	@INTERLEAVINGS=$(INTERLEAVINGS) $(BIN)/pytest -n auto -q tests/waiting/test_interleavings.py

test-histories: $(STAMP)  ## Run starts and batches through 100000 random histories each (HISTORIES=n for another number)
	@HISTORIES=$(HISTORIES) $(BIN)/pytest -n auto --dist worksteal -q tests/starting/test_histories.py

test-combinations: $(STAMP)  ## Run the doctor against 200 random combinations of the emulator's switches, and against an emulator like each report (COMBINATIONS=n for another number)
	@COMBINATIONS=$(COMBINATIONS) $(BIN)/pytest -n auto --dist worksteal -q tests/doctor/test_combinations.py tests/doctor/test_likeness.py

# What the tests of deployments cover in processes that they kill leaves no data, so only make test counts. Under a tracer polls and
# long scripts take longer than two tests of their cost allow.
coverage: $(QUALITY_STAMP)  ## Measure the branches that make test takes, fail below the floors, and write docs/testing.md
	@mkdir -p build
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -n auto --dist worksteal -q --deselect tests/waiting/test_batch_wait.py::TestCost \
		--deselect tests/emulator/test_control_api.py::test_yaml_that_is_too_large_is_refused_quickly $(TESTS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage json --quiet -o build/coverage.json
	@$(BIN)/python scripts/coverage_floors.py build/coverage.json --write

mutation: $(QUALITY_STAMP)  ## Change the code that decides, see whether its tests notice, and write docs/testing.md (MUTANTS="*decision_table*" for some)
	@$(BIN)/mutmut run $(MUTANTS)
	@$(BIN)/python scripts/mutation_scores.py --write

fuzz: $(FUZZ_STAMP)  ## Fuzz everything that decodes, 10 minutes a target (FUZZ_SECONDS=60 for a minute, FUZZ_SEED=1 for the same inputs each time, FUZZ="event --keep" for one target)
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) $(FUZZ)

docs: $(DOCS_STAMP)  ## Build the documentation into build/docs
	@$(BIN)/sphinx-build -q -W --keep-going -n -E docs build/docs

bench: $(STAMP)  ## Measure what the provider adds to the parsing of a DAG file
	@$(BIN)/python benchmarks/import_time.py

bench-waiting: $(STAMP)  ## Measure what waiting costs a triggerer, and write docs/performance.md (40 minutes)
	@$(BIN)/python -m benchmarks.waiting --write

bench-batch: $(STAMP)  ## Measure what a batch of 10,000 launches costs, and write docs/performance.md (15 minutes)
	@$(BIN)/python -m benchmarks.batch --write

bench-gate: $(STAMP)  ## Measure what one gate costs a worker, and the http provider's, and write docs/performance.md (5 minutes)
	@$(BIN)/python -m benchmarks.gate --write

bench-compare: $(STAMP)  ## Measure whether a change has made waits or batches worse than at BASE, a commit or branch (15 minutes)
	@$(BIN)/python -m benchmarks.compare $(BASE)

bench-faults: $(STAMP)  ## Let 3000 waits poll a server that often fails, and check how they end (12 minutes)
	@$(BIN)/python -m benchmarks.faults

bench-tokens: $(STAMP)  ## Let 200 waits lose their token every second, and count what is lost (10 minutes)
	@$(BIN)/python -m benchmarks.tokens

bench-scale: $(BROWSER_STAMP)  ## Measure several triggerers, and searches among 100,000 ended instances, and write docs/performance.md (15 minutes)
	@$(BIN)/python -m benchmarks.scale --write

soak: $(HA_STAMP)  ## Let 2000 tasks wait in two triggerers, of which one is killed every five minutes, and write docs/performance.md (SOAK_MINUTES=n for another length; needs Debian)
	@$(BIN)/python -m benchmarks.soak --minutes $(SOAK_MINUTES) $(if $(filter 30,$(SOAK_MINUTES)),--write)

demo: $(STAMP)  ## Run the approval gate against the emulator (OUTCOME=approve|reject)
	@$(BIN)/python scripts/demo.py $(OUTCOME)

up: $(STAMP)  ## Start Airflow and the emulator for docs/tour.md, until Ctrl-C
	@$(BIN)/python scripts/up.py

newcomer: $(BROWSER_STAMP)  ## Install the wheel into an empty environment, and see a gate open in a browser (needs Debian)
	@$(BIN)/python scripts/newcomer.py

pictures: $(BROWSER_STAMP)  ## Make docs/pictures/ anew: screenshots of a deployment, and plots of docs/performance.md (needs Debian)
	@$(BIN)/python scripts/pictures.py

build: $(STAMP)  ## Build the wheel and the source archive into dist/
	@rm -rf dist
	@$(BIN)/hatchling build

# With a TAG it takes REPOSITORY_URL and CONTACT_EMAIL from the environment.
release-check: $(RELEASE_STAMP)  ## Do all that a release does, but the upload (TAG=v1.2.3 checks that tag too)
	@$(BIN)/python scripts/release_check.py $(if $(TAG),--tag $(TAG))

constraints: $(STAMP)  ## Resolve constraints/ anew, to the newest versions
	@$(BIN)/python scripts/make_constraints.py

clean:  ## Remove everything that these commands made
	@rm -rf .venv .venv-lines .venv-next dist build mutants .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
