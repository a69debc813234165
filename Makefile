# What people do, by name; .ci/run calls the same.
PYTHON ?= python

.PHONY: test lint types bench
test:
	$(PYTHON) -m pytest
lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
types:
	$(PYTHON) -m mypy
bench:
	for script in tests/benchmarks/bench_*.py; do echo "== $$script"; GOMP_SPINCOUNT=0 $(PYTHON) $$script || exit 1; done
