# Everything runs in a virtual environment that the targets create when it is missing or older than pyproject.toml.
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

help:
	@echo "make demo    causal attention from naive math: check, cycles, roofline, assembly and trace"
	@echo "make test    the test suite"
	@echo "make check   ruff, mypy --strict, fast tests"
	@echo "make docs    docs/timing.md and docs/isa.md from the code"
	@echo "make cases   every zoo case that must pass its check, on four machines"
	@echo "make fuzz MINUTES=n  random instructions against QEMU at every VLEN (needs Debian's qemu-user)"
	@echo "make fuzz-kernels MINUTES=n  random programs of the language against float64; a failure becomes out/fuzz-*.rvg"
	@echo "make malformed  10,000 damaged files and 10,000 texts of random bytes through rvgpu sim"
	@echo "make bench   benchmarks/results.txt, docs/performance.md and .svg; ONLY='text' measures some rows"
	@echo "make bench-tune  the model's tilings beside the tuner's best on 20 shapes: benchmarks/tune.txt"
	@echo "make tune-tables  the shipped tilings, src/rvgpu/runtime/tuned.toml, from the tuner"
	@echo "make workloads   attention, softmax and norms at the sizes of LLMs on five machines, checked; an hour, goes on where it was stopped"
	@echo "make compile-time  cold compile times of the bench's kernels and 100 random programs against their bars"
	@echo "make bench-host  host speed: compile, engine, simulated instructions per second (varies with load)"

$(STAMP): pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(PY) examples/demo.py

test: $(STAMP)
	$(PY) -m pytest -n 2 tests

check: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m mypy -p rvgpu
	$(PY) -m pytest -n 2 -m "not slow" tests

bench: $(STAMP)
	$(PY) benchmarks/run.py $(if $(ONLY),--only $(ONLY))

bench-tune: $(STAMP)
	$(PY) -m benchmarks.tune $(if $(ONLY),--only $(ONLY))

tune-tables: $(STAMP)
	$(PY) -m benchmarks.tune --tables $(if $(ONLY),--only $(ONLY))

docs: $(STAMP)
	$(PY) docs/generate.py

workloads: $(STAMP)
	$(PY) -m benchmarks.workloads

compile-time: $(STAMP)
	$(PY) -m benchmarks.compile_time

bench-host: $(STAMP)
	$(PY) -m benchmarks.host

MINUTES := 4
fuzz: $(STAMP)
	$(PY) -m tests.qemu_judge --minutes $(MINUTES)

fuzz-kernels: $(STAMP)
	$(PY) -m rvgpu.testing --minutes $(MINUTES)

malformed: $(STAMP)
	RVGPU_CASES=10000 $(PY) -m pytest -n 2 -m slow tests/test_malformed.py

cases: $(STAMP)
	$(PY) benchmarks/cases.py

.PHONY: help demo test check bench bench-host bench-tune tune-tables workloads compile-time docs cases fuzz fuzz-kernels malformed
