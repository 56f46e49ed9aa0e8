# The two commands are `make demo` and `make test`; everything they need is set up in the checkout.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
UV := .tools/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS := never
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help setup demo test check bench faults docs proto image clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

$(UV): scripts/bootstrap.sh
	@scripts/bootstrap.sh && touch $@

.venv/.synced: $(UV) pyproject.toml uv.lock
	@echo "setting up the environment in .venv ..."
	@$(UV) sync --quiet --frozen --python "$$(cat .tools/base-python)" && touch $@

setup: .venv/.synced ## set up uv and the environment, inside the checkout

demo: setup ## two regions on loopback: leaders, pulls, a leader killed in one; no byte crosses
	@$(BIN)/speil demo

check: setup ## what a change must pass: format, lint, types, layers, all tests that need nothing (two minutes)
	@$(BIN)/ruff format --check --quiet src tests bench scripts
	@$(BIN)/ruff check --quiet src tests bench scripts
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo | tail -n 3
	@$(BIN)/pytest -q

test: check ## everything this machine allows; what is skipped is named with the command that installs it
	@$(BIN)/pytest -q -rfE tests/interop tests/chart tests/system

bench: setup ## the figures, side by side with a baseline (six minutes): docs/benchmarks.md
	@$(BIN)/python -m bench --write

faults: setup ## every fault with every containerd (root; ten minutes): docs/faults.md
	@$(BIN)/python -m tests.system.faults

docs: setup ## write the generated pages
	@$(BIN)/python scripts/generate_settings_page.py
	@$(BIN)/python scripts/generate_chart_readme.py

proto: $(UV) ## generate the protobuf modules from proto/
	@$(UV) run --quiet --group proto python scripts/generate_protobuf.py

clean: ## remove what the commands above set up
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
