# The front door. Every line is also a plain command you can type.
.PHONY: help setup demo demo-finetune scenes demo-segment gpu-check wheel dist docs test lint advisories bench results clean-demo

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## system packages, libtorch, test servers (CUDA=1: libtorch with CUDA)
	@setup/setup.sh

demo: ## pre-train on 8,000 clip-art images in about 6 minutes (DATA=folder: on yours; OBJECTIVE=mae|simclr|dino|dinov2|moco-v3|supervised)
	@OBJECTIVE="$(OBJECTIVE)" setup/demo.sh "$(DATA)"

demo-finetune: ## fine-tune the demo's encoder with labels in a few minutes, and name three pictures (makes the demo first if it is not there)
	@setup/finetune.sh

scenes: ## scenes with label maps, composed of clip art: data/scenes, the test bed of segmentation
	@setup/scenes.sh

demo-segment: ## teach the demo's encoder to outline objects in scenes, in some ten minutes (makes demo and scenes first if they are not there)
	@setup/segment.sh

gpu-check: ## what this machine's GPU makes of the program, in 6 minutes (docs/gpu.md)
	@setup/gpu_check.sh

wheel: ## a Python wheel in dist/: `pip install` it beside torch and nothing is compiled
	@setup/setup.sh packaging
	@setup/package.sh wheel

dist: ## a tarball in dist/: program, recipes, dashboards, systemd unit, docs
	@setup/setup.sh packaging
	@setup/package.sh dist

docs: ## the docs as a site in target/site, by mdBook (setup/docs.sh serve: on port 3000)
	@setup/setup.sh docs
	@setup/docs.sh

test: setup ## all tests, as CI runs them before `make lint`
	cargo test --workspace

lint: ## formatting, clippy (warnings are errors), licences and sources of dependencies, dependencies that nothing uses
	@setup/setup.sh lint
	cargo fmt --all --check
	.lint/cargo-shear
	.lint/cargo-deny --log-level error --offline check bans licenses sources
	cargo clippy --workspace --all-targets -- -D warnings

advisories: ## known vulnerabilities of dependencies, by RustSec's database, which it fetches
	@setup/setup.sh lint
	.lint/cargo-deny --log-level warn check advisories

bench: ## the numbers of docs/benchmarks.md
	cargo bench -p splitmask-pipeline
	cargo bench --bench step

results: ## a table of docs/results.md (TABLE=objectives|tokenizers|fractions|all, data of `make demo`; TABLE=family|fractions-family|transfer, SET=drawings|emoji; TABLE=transfer SET=scenes; TABLE=costs)
	cargo build --quiet
	@setup/results.py "$(TABLE)" $(if $(SET),--set "$(SET)") $(if $(STEPS),--steps "$(STEPS)") $(if $(MINUTES),--minutes "$(MINUTES)") $(if $(SEEDS),--seeds "$(SEEDS)") $(if $(STARTS),--starts "$(STARTS)")

clean-demo: ## removes what the demos made (data/clipart, data/scenes, runs/demo, runs/demo-OBJECTIVE, runs/finetune-demo, runs/segment-scenes)
	rm -rf data/clipart data/scenes data/scenes-files runs/demo runs/demo-* runs/finetune-demo runs/segment-scenes
