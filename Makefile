# Each target makes and reuses .venv by itself; nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
DEMO := p-hop-one-layer p-hop-three-layers p-hop-looped p-hop-timestep sudoku-4x4 sudoku-4x4-timestep

.PHONY: demo demo-seeds test check docs bench gpu results

demo: $(READY)  ## train six small models in a minute on 2 cores, compare them, write a report
	$(BIN)/looped compare $(DEMO) --jobs 2 --out runs/demo
	@echo "Look at it: open runs/demo/report/report.html"

demo-seeds: $(READY)  ## the same with three seeds; results/demo comes from here
	$(BIN)/looped compare $(DEMO) --seeds 0 1 2 --jobs 2 --out runs/demo-seeds

test: $(READY)  ## all tests, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(READY)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(READY)  ## build the documentation site, with an error for a broken link: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

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
