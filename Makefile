# Common tasks; .ci/run calls them too.
PYTHON ?= python

.PHONY: test lint types bench live docs dist
test:
	$(PYTHON) -m pytest
lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
types:
	$(PYTHON) -m mypy
docs:
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --quiet --strict
dist:
	rm -rf dist && $(PYTHON) -m build --outdir dist . && $(PYTHON) -m twine check --strict dist/*
# figures go to BENCH, a JSON file; tests/benchmarks/compare.py OLD NEW compares them
BENCH ?= bench.json
bench:
	rm -f $(BENCH)
	for script in "bench_time_domain.py --all" $(filter-out bench_time_domain.py,$(notdir $(wildcard tests/benchmarks/bench_*.py))); do \
	  echo "== $$script"; GOMP_SPINCOUNT=0 BENCH_JSON=$(abspath $(BENCH)) $(PYTHON) tests/benchmarks/$$script || exit 1; done

# the page that separates in a browser; MODEL: an export to onnx-step to include; otherwise users choose one
MODEL ?= $(wildcard demo/run/model.step.onnx)
live: docs/live/node_modules
	node docs/live/build.js $(if $(MODEL),--model $(MODEL))
docs/live/node_modules: docs/live/package-lock.json
	cd docs/live && npm ci
	touch $@
