# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv first, if need be.
PYTHON ?= python3
PIP = .venv/bin/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: demo test test-all coverage fuzz faults erase-matrix field bench bench-scaling docs lint format clean

demo: .venv/runtime
	.venv/bin/knowundo demo

# Two processes, a file of tests in each; waiting threads sleep, or they would take the cores from
# the other process.
PYTEST = OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 .venv/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: .venv/dev
	$(PYTEST)

test-all: .venv/dev
	$(PYTEST) -m "slow or not slow"

# The fast tests, with the share of lines that they run; fails below the floor. Tracing takes time, so
# CI measures it in a job of its own. 98.2 % of 16,475 lines were run at 5de0fd8.
COVERAGE_FLOOR = 98

coverage: .venv/dev
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE_FLOOR)

# Scheduled, not a part of the tests: a minute or two, and a quarter of an hour.
fuzz: .venv/dev
	.venv/bin/python tests/fuzzing.py --inputs 20000

faults: .venv/dev
	.venv/bin/python perf/faults.py --kills 50 --rooms 10

# Hours; a finished cell is not run again. Cells of real data need DATA, a folder with tofu/ and
# knowundo/ as their authors publish them; without it they are left out.
DATA = data
erase-matrix: .venv/dev
	.venv/bin/python perf/erase_matrix.py --out runs/erase-matrix --data $(DATA)

# Every method with three seeds, as one table. What is done is not done again; a method that diverged
# is in the table as it was before.
SEEDS = 0, 1, 2
DOMAIN = privacy
field: .venv/runtime
	.venv/bin/knowundo study field --grid 'seed=[$(SEEDS)]' --set data.domain=$(DOMAIN) --out runs/field-$(DOMAIN)
	.venv/bin/python scripts/summarize_runs.py runs/field-$(DOMAIN)/runs/*/

# Nothing else may run on the machine meanwhile; about an hour.
bench: .venv/dev
	.venv/bin/python perf/speed.py --pairs 5

# The same for its quarter of an hour. Only its plot needs matplotlib, so that tests do not wait for it.
bench-scaling: .venv/dev
	$(PIP) 'matplotlib>=3.9'
	.venv/bin/python perf/scaling.py

# The documentation site, in build/site; a broken link or an unknown name fails.
# Not with --quiet: warnings that are not logged are not counted either.
docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

lint: .venv/dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

format: .venv/dev
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

# torch comes first and alone, so that nothing else chooses its build. Compiling every module costs
# more than one run of the demo gains, and less than the many processes of the tests do; some
# packages ship files for other Pythons, which do not compile and are never imported.
.venv/runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	touch $@

.venv/dev: .venv/runtime
	$(PIP) --editable '.[dev]'
	.venv/bin/python -m compileall -q -j 2 .venv/lib > .venv/compile.log || true
	touch $@

clean:
	rm -rf .venv runs
