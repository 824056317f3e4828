# Each target makes what it needs; nothing has to be installed before but Python >= 3.11.
PYTHON ?= python3
DEMO_DIR ?= runs/digits
# More flags for every run of the demo, as in `make demo DEMO_FLAGS=--config.seed=1`.
DEMO_FLAGS ?=

QUICK = .venv-quick-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

.PHONY: demo test test-quick test-full lint format clean
.DELETE_ON_ERROR:

# A stamp inside each environment says that installation finished.
.venv/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	touch $@

.venv-test/.installed: requirements.txt requirements-test.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python -m pip install --quiet --disable-pip-version-check -e '.[demo,fast,dev]'
	.venv-test/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	# Without its dependencies: they would replace the CPU build of PyTorch by one for CUDA.
	.venv-test/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'torchvision==0.28.0' 'timm>=1.0.20,<2'
	touch $@

# A convnet teaches three small transformers to read digits; ends with a table and a picture.
demo: .venv/.installed
	for what in teacher none soft hard; do \
	  .venv/bin/python train.py --config configs/digits.py:$$what --workdir $(DEMO_DIR)/$$what \
	    --config.teacher.weights=$(DEMO_DIR)/teacher $(DEMO_FLAGS) || exit $$?; \
	done
	.venv/bin/python -m deit_jax report $(DEMO_DIR)/none $(DEMO_DIR)/soft $(DEMO_DIR)/hard \
	  --teacher $(DEMO_DIR)/teacher --output $(DEMO_DIR)/report

# What needs neither PyTorch nor seconds of compilation; in an environment of its own for each
# Python, as in `make test-quick PYTHON=python3.13`. 50 seconds on two cores, with the programs of an
# earlier session.
test-quick: $(QUICK)/.installed
	$(QUICK)/bin/python -m pytest --quick -n 2 --dist loadfile

$(QUICK)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(QUICK)
	$(QUICK)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[demo,hub,test]'
	touch $@

# The tests, with PyTorch, timm and transformers as oracles; some 15 minutes of processor time,
# less when the programs of an earlier session are still kept.
test: .venv-test/.installed
	.venv-test/bin/python -m pytest -n 2 --dist loadfile -m 'not full'

# All tests, those of many minutes too, of programs compiled as users compile them.
test-full: .venv-test/.installed
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS= .venv-test/bin/python -m pytest

lint: .venv-test/.installed
	.venv-test/bin/ruff format --check .
	.venv-test/bin/ruff check .
	.venv-test/bin/mypy
	.venv-test/bin/lint-imports --no-cache --config pyproject.toml

format: .venv-test/.installed
	.venv-test/bin/ruff format .
	.venv-test/bin/ruff check --fix .

clean:
	rm -rf .venv .venv-* build dist *.egg-info
