# Everything runs in an environment of its own, made once: `make install`.
PYTHON ?= python3
VENV ?= .venv
# --system-site-packages takes torch from the machine, where it must be the machine's own build.
VENV_FLAGS ?=
BIN := $(VENV)/bin

.PHONY: install demo browser test check bench clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): once, and some minutes where torch comes with its CUDA libraries"
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[offline,adapters,approximate,baselines,metrics,plots,chat,objects,service,tune,dev]'
	@touch $@

demo: install
	$(BIN)/mmrec demo --out demo

# What the page is tested in. Without a network the machine's own Chromium is taken, where there is one.
browser: install
	@$(BIN)/python -m playwright install chromium >/dev/null 2>&1 || echo "Chromium cannot be fetched: the page is \
	tested in the machine's own, or its tests are skipped"

# Two processes, each with its own modules: most tests keep one processor busy.
test: install
	$(BIN)/python -m pytest -rs -n 2 --dist loadscope

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# All benchmarks beside their peers; some take half an hour. BENCH=--quick is a smoke test.
BENCH ?=
bench: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	mkdir -p bench
	set -e; for name in decode sampling encode embed rank search fusion fit recommenders report service; do \
		$(BIN)/python scripts/bench_$$name.py $(BENCH) --out bench/$$name.json; done

clean:
	rm -rf $(VENV) demo bench build *.egg-info
