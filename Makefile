# Everything runs in .venv, which `make build` makes from requirements.lock; nothing is installed outside this folder.
SHELL := /bin/sh
RUN := .venv/bin
WORKERS ?= 2
.DEFAULT_GOAL := help
.PHONY: help build demo test unit conformance faults soak fuzz check format proto bench dist lock consul clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## locked environment in .venv and bin/{trans,client,coordinator,kit}
	@tools/setup.sh

demo: build ## the transfer, end to end: etcd, coordinator, trans, client, with their logs side by side
	@$(RUN)/python -m tools.demo

test: build check ## everything a change must pass; REQUIRE_SERVERS=1 turns skips for absent servers into failures
	@$(RUN)/python -m tests.interop.build
	@$(RUN)/pytest -n $(WORKERS) $(ARGS)

unit: build ## the tests that need no server and no wall clock
	@$(RUN)/pytest tests/unit $(ARGS)

conformance: build ## the specifications' checklists against real etcd and real processes
	@REQUIRE_SERVERS=1 $(RUN)/pytest tests/conformance $(ARGS)

.PHONY: interop
interop: build ## peers in Go (kratos, grpc-go, h2spec, ghz, grpcurl) and Node, both directions; skips what cannot be built
	@$(RUN)/python -m tests.interop.build
	@$(RUN)/pytest tests/interop $(ARGS)

faults: build ## killed processes, lost leases, crash recovery
	@REQUIRE_SERVERS=1 $(RUN)/pytest tests/faults $(ARGS)

soak: build ## lean engine: ten million calls on 1,000 connections, peers killed, frozen and cut off
	@$(RUN)/python -m tests.soak $(ARGS)

fuzz: build ## lean engine: a million frames, header blocks and conversations against hpack and h2
	@$(RUN)/python -m tests.fuzz $(ARGS)

check: build ## format, lint, types, layers, protos
	@$(RUN)/ruff format --check -q . || { echo "make format mends this"; exit 1; }
	@$(RUN)/ruff check -q .
	@$(RUN)/lint-imports --no-cache > .import-lint.log 2>&1 || { cat .import-lint.log; exit 1; }
	@$(RUN)/mypy
	@$(RUN)/buf lint

format: build ## rewrites the sources in the house style
	@$(RUN)/ruff format -q .
	@$(RUN)/ruff check -q --fix .

proto: build ## regenerates the protobuf code; fails when CI=true and the checked-in code differs
	@tools/proto.sh
	@tests/interop/proto.sh
	@if [ "$${CI:-}" = true ]; then git diff --exit-code -- '*_pb2*'; fi

bench: build ## throughput and latency beside yardsticks of the same run; writes docs/benchmarks.md
	@$(RUN)/python -m tests.bench $(ARGS)

dist: build ## wheel, sdist, and trans and coordinator as single files, in dist/
	@tools/dist.sh dist
	@ls -lh dist

lock: build ## resolves requirements.lock anew from pyproject.toml
	@uv=$$(command -v uv || echo $(RUN)/uv); $$uv pip compile -q --upgrade --universal --generate-hashes --python-version 3.11 \
	  --all-extras --group dev pyproject.toml -o requirements.lock --no-header --no-annotate

consul: ## builds a Consul agent for its tests, once, into ~/.cache/kit; needs go and some minutes
	@command -v go > /dev/null || { echo "consul: no go here; put consul on PATH, or name it in CONSUL_BIN"; exit 2; }
	@cd tools/consul && go build -ldflags '-s -w -checklinkname=0' -o "$$HOME/.cache/kit/consul" .

clean: ## removes what build, test and demo made
	@rm -rf .venv .venv-proto bin dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .import-lint.log *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
