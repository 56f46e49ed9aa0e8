# The two commands are `make demo` and `make test`; everything they need is set up in the checkout.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
UV := .tools/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS := never
# Compiled modules stay out of the source folders. Without them each process that a test starts compiles all anew.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/pycache
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-after-check check properties bench hostile herd faults cluster cluster-up cluster-down image image-trees image-lock chart wheel man release docs site sbom proto clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

$(UV): scripts/bootstrap.sh scripts/requirements/uv.txt
	@scripts/bootstrap.sh && touch $@

.venv/.synced: $(UV) pyproject.toml uv.lock
	@echo "setting up the environment in .venv ..."
	@$(UV) sync --quiet --frozen --python "$$(cat .tools/base-python)" && touch $@

setup: .venv/.synced ## set up uv and the environment, inside the checkout

demo: setup ## two regions on loopback: leaders, pulls, a leader killed in one; no byte crosses
	@$(BIN)/speil demo

check: setup ## what a change must pass: format, lint, types, layers, all tests that need nothing (a minute)
	@$(BIN)/python scripts/run_tests.py check

test: setup ## everything this machine allows; goes on after a failure; what is skipped is named with its command
	@$(BIN)/python scripts/run_tests.py test

test-after-check: setup ## the rest of `make test`, for whoever has just run `make check`
	@$(BIN)/python scripts/run_tests.py test --without-check

properties: setup ## the Hypothesis tests of the cores with twenty times as many examples (ten minutes)
	@SPEIL_EXAMPLES_FACTOR=20 $(BIN)/pytest -q -n auto -m hypothesis

bench: setup ## the figures, side by side with a baseline (a quarter of an hour): docs/benchmarks.md
	@$(BIN)/python -m bench --write

hostile: setup ## attacks beside own pulls, with what was seen and the targets (ten minutes)
	@$(BIN)/python -m bench --only hostile

herd: setup ## many nodes that pull one image at once, over links with a limit, and 48 processes (root; half an hour)
	@$(BIN)/python -m tests.system.herd
	@$(BIN)/python -m tests.system.herd.crowd

faults: setup ## every fault with every containerd (root; half an hour): docs/faults.md
	@$(BIN)/python -m tests.system.faults

cluster: setup ## all tests on a real cluster of two regions, on this machine (root; SPEIL_CLUSTER_FOLDER=… uses one that is up)
	@SPEIL_CLUSTER=full $(BIN)/pytest -q -rfE tests/cluster

cluster-up: setup ## that cluster for trying things, with speil installed in both regions; it prints how to use it
	@$(BIN)/python -m tests.cluster up

cluster-down: setup ## remove it
	@$(BIN)/python -m tests.cluster down

image: setup ## the container image for amd64 and arm64, without a container runtime: dist/speil-image.tar (IMAGE=its name)
	@$(BIN)/python -m scripts.image $(if $(IMAGE),--reference $(IMAGE))

image-trees: setup ## the image's two trees of this machine's architecture, for the Containerfile (TREES=folder)
	@$(BIN)/python -m scripts.image --trees $(TREES)

image-lock: setup ## take the newest Debian packages into the image's lock
	@$(BIN)/python -m scripts.image --lock

chart: setup ## the chart's package: dist/speil-VERSION.tgz (IMAGE_REPOSITORY=its default image)
	@$(BIN)/python -m scripts.package_chart $(if $(IMAGE_REPOSITORY),--image $(IMAGE_REPOSITORY))

wheel: setup ## the wheel and the source archive for a package index: dist/python
	@$(BIN)/python -m hatchling build --directory dist/python

man: setup ## the man pages, made from the declared settings: dist/man/man1
	@$(BIN)/python scripts/generate_man_pages.py dist/man/man1

release: setup ## what a release has, in dist (TAG=vVERSION IMAGE_REPOSITORY=where its image will be)
	@$(BIN)/python scripts/check_release.py $(TAG)
	@$(BIN)/python scripts/build_kube_tools.py helm
	@$(MAKE) --no-print-directory image IMAGE=$(IMAGE_REPOSITORY):$$(cat dist/VERSION)
	@$(MAKE) --no-print-directory chart wheel sbom

docs: setup ## write the generated pages, and the chart's dashboard
	@$(BIN)/python scripts/generate_settings_page.py
	@$(BIN)/python scripts/generate_metrics_page.py
	@$(BIN)/python scripts/generate_chart_readme.py
	@$(BIN)/python -m scripts.dashboard

site: $(UV) ## the documentation as a site, without network: dist/site (SCREENSHOTS=folder of the browser tests' pictures)
	@UV_PROJECT_ENVIRONMENT=.cache/site $(UV) run --quiet --frozen --only-group site --python "$$(cat .tools/base-python)" \
		python -m scripts.site $(if $(SCREENSHOTS),--screenshots $(SCREENSHOTS))

sbom: setup ## the packages that a node runs, with versions and licences (CycloneDX): dist/speil.cdx.json
	@$(BIN)/python scripts/write_sbom.py

proto: $(UV) ## generate the protobuf modules from proto/
	@$(UV) run --quiet --group proto python scripts/generate_protobuf.py

clean: ## remove what the commands above set up
	rm -rf .venv .tools .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
