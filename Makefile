# Needs Python 3.11 or newer, and sets up the rest by itself, in .venv. PYTHON=... chooses the interpreter.

PYTEST_ARGS ?=
CHAOS_ARGS ?=
bin := .venv/bin

.PHONY: help
help:
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: demo
demo: .venv/.runtime ## the main job on recorded sensor data for about 20 s; its samples are then in out/demo
	$(bin)/mlade demo --out out/demo

.PHONY: test
test: .venv/.dev ## every test; PYTEST_ARGS="tests/unit -k schedule" for some
	@scripts/setup.sh mosquitto || echo "Going on without the mosquitto binary: the tests will look for Docker." >&2
	@scripts/setup.sh browser || echo "Going on without Chromium: the tests in tests/browser will fail." >&2
	@scripts/setup.sh registry || echo "Going on without docker-registry: the tests of models from registries will fail." >&2
	@scripts/setup.sh promtool || echo "Going on without promtool: the tests of alerts will fail." >&2
	$(bin)/python -m pytest $(PYTEST_ARGS)

.PHONY: chaos
chaos: .venv/.dev ## ten minutes of kills and faults beside an undisturbed run; CHAOS_ARGS="--minutes 60 --seed 7"
	@scripts/setup.sh mosquitto || echo "Going on without the mosquitto binary: Docker will be looked for." >&2
	$(bin)/python -m tests.crash $(CHAOS_ARGS)

.PHONY: lint
lint: .venv/.dev ## style and types
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

.PHONY: bench
bench: .venv/.bench ## throughput and selection quality, with mlade's peers
	$(bin)/python -m bench

.PHONY: docs
docs: .venv/.dev ## the documentation as pages, in build/docs
	NO_MKDOCS_2_WARNING=1 $(bin)/python -m mkdocs build --strict --quiet

.PHONY: reference
reference: .venv/.dev ## what docs/reference and config/schema take from the code, anew
	$(bin)/python scripts/reference.py

.PHONY: constraints
constraints: ## constraints.txt anew, with the newest versions that pyproject.toml allows
	scripts/setup.sh constraints

.PHONY: clean
clean: ## removes what the other targets made, except .venv
	scripts/docker_for_tests.sh stop
	rm -rf build dist out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

# Stamps: set up again only when a dependency changed.
.venv/.runtime: pyproject.toml constraints.txt
	scripts/setup.sh runtime
	@touch $@

.venv/.bench: .venv/.dev
	scripts/setup.sh bench
	@touch $@

.venv/.dev: .venv/.runtime
	scripts/setup.sh dev
	@touch $@
