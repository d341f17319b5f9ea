# The commands of this repository; each sets up what it needs by itself. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help run test quick soak bench screens image rig rig-down setup build fmt lint

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 10

run: ## the server with a demo on http://127.0.0.1:3000 (RELEASE=1: as shipped; RUNNER=kubernetes: builds in Pods)
	@scripts/run.sh

test: ## every suite, on real parts
	@scripts/test.sh

quick: ## format, clippy and unit tests: the inner loop
	@scripts/test.sh quick

soak: ## hundreds of kills, long logs; writes docs/soak.md
	@scripts/soak.sh

bench: ## measures speed and memory; writes target/bench/report.json
	@scripts/bench.sh

screens: ## makes the pictures in docs/screens anew
	@scripts/screens.sh

image: ## the product's image, pushed to IMAGE=registry.example/kiops:1
	@scripts/image.sh

rig: ## a Kubernetes of one node to try things on; `make run RUNNER=kubernetes` has one of its own
	@scripts/rig.sh up

rig-down: ## ends it
	@scripts/rig.sh down

setup: ## tools and packages only
	@scripts/setup.sh test

build: ## the programs and the web page (RELEASE=1: as shipped)
	@scripts/setup.sh run
	@scripts/build.sh

fmt: ## format the sources
	@cargo fmt --all

lint: ## clippy as the tests run it
	@scripts/lint.sh
