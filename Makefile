# Every target does what it needs first: `make test` on a fresh machine makes the environment, installs and runs.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
RECIPE = configuration/recipes/semantic_segmentation/synthetic_shapes/upernet_vit-comer-demo.yaml

# On CI, where CI is set, nothing may be skipped for want of a compiler, a package or a download.
export VIT_COMER_REQUIRE_ALL ?= $(filter-out 0 false,$(CI))
IF_POSSIBLE = $(if $(VIT_COMER_REQUIRE_ALL),,--if-possible)

.PHONY: help demo test test-slow test-lowest test-wheel kernel style style-check types clean

help:
	@echo "make demo         train a tiny ViT-CoMer on shapes drawn on the spot, and show what it learnt"
	@echo "make test         run all tests but the few slow ones"
	@echo "make test-slow    run those: minutes each"
	@echo "make test-lowest  run the tests with the lowest versions that setup.cfg names (Python 3.11)"
	@echo "make test-wheel   build the wheel and use it in an empty environment, outside this folder"
	@echo "make kernel       build the native kernel for this machine (a C++ compiler; nvcc for GPUs)"
	@echo "make style        format and lint"
	@echo "make style-check  say what make style would change, and change nothing"
	@echo "make types        check the types of package, library and scripts"
	@echo "make clean        remove the environments and what is built; what was trained stays"

demo: $(VENV)/.installed-train
	$(RUN) scripts/build_kernel.py --backend cpu --if-possible
	$(RUN) scripts/train.py $(RECIPE) overwrite=true

test: $(VENV)/.installed-test
	$(RUN) scripts/build_kernel.py --backend cpu $(IF_POSSIBLE)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-slow: $(VENV)/.installed-test
	$(RUN) -m pytest -m slow

test-lowest:
	$(MAKE) test VENV=.venv-lowest PYTHON=python3.11 LOWEST=yes

test-wheel:
	$(PYTHON) tests/try_wheel.py

kernel: $(VENV)/.installed-kernels
	$(RUN) scripts/build_kernel.py

style: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

style-check: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

# The metrics by themselves: they import the library `evaluate`, whose name here is that of scripts/evaluate.py.
types: $(VENV)/.installed-dev
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --no-warn-unused-configs scripts/metrics

$(VENV)/.installed-%: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	@echo "Installing the packages (several GB where PyTorch comes with CUDA; a few minutes)"
	$(if $(LOWEST),$(RUN) tests/lowest_versions.py > $(VENV)/constraints.txt)
	$(RUN) -m pip install --quiet $(if $(LOWEST),--constraint $(VENV)/constraints.txt) --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest build *.egg-info kernels/*/build
