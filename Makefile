# Every target does what it needs first: `make test` on a fresh machine makes the environment, installs and runs.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
RECIPE = configuration/recipes/semantic_segmentation/synthetic_shapes/upernet_vit-comer-demo.yaml

.PHONY: help demo test test-slow kernel style types clean

help:
	@echo "make demo       train a tiny ViT-CoMer on shapes drawn on the spot, and show what it learnt"
	@echo "make test       run all tests but the few slow ones"
	@echo "make test-slow  run those: minutes each"
	@echo "make kernel     build the native kernel for this machine (a C++ compiler; nvcc for GPUs)"
	@echo "make style      format and lint"
	@echo "make types      check the types of package, library and scripts"
	@echo "make clean      remove the environment and everything made"

demo: $(VENV)/.installed-train
	$(RUN) scripts/build_kernel.py --backend cpu --if-possible
	$(RUN) scripts/train.py $(RECIPE) overwrite=true

test: $(VENV)/.installed-test
	$(RUN) scripts/build_kernel.py --backend cpu --if-possible
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-slow: $(VENV)/.installed-test
	$(RUN) -m pytest -m slow

kernel: $(VENV)/.installed-kernels
	$(RUN) scripts/build_kernel.py

style: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# The metrics by themselves: they import the library `evaluate`, whose name here is that of scripts/evaluate.py.
types: $(VENV)/.installed-dev
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --no-warn-unused-configs scripts/metrics

$(VENV)/.installed-%: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	@echo "Installing the packages (several GB where PyTorch comes with CUDA; a few minutes)"
	$(RUN) -m pip install --quiet --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) outputs build *.egg-info kernels/*/build
