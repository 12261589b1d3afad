# Each target makes and reuses .venv by itself; nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo demo-seeds test check bench gpu results

demo: $(READY)  ## train four small models, compare them over loop counts, write a report (minutes on 2 cores)
	$(BIN)/looped compare demo-standard demo-looped-2 demo-looped-4 demo-timestep \
		--learning-rates 5e-3 1e-2 --seeds 0 --jobs 2 --out runs/demo
	@echo "Look at it: open runs/demo/report/report.html"

demo-seeds: $(READY)  ## the demo in full: three seeds; results/demo comes from here
	$(BIN)/looped compare demo-standard demo-looped-2 demo-looped-4 demo-timestep \
		--learning-rates 5e-3 1e-2 --seeds 0 1 2 --jobs 2 --out runs/demo-seeds

test: $(READY)  ## all tests, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(READY)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

results: $(READY)  ## write docs/results.md from the reports under results/
	$(BIN)/python -m benchmarks.results

bench: $(READY)  ## measure training steps, writing and start-up against a plain reference, GPT-2 and `import torch`
	$(BIN)/python -m benchmarks.training_step
	$(BIN)/python -m benchmarks.decoding
	$(BIN)/python -m benchmarks.startup

gpu: $(READY)  ## check and measure everything on one GPU, in ten minutes
	$(BIN)/python -m benchmarks.gpu --out runs/gpu

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
