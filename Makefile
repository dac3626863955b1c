# Every target sets up what it needs in .venv first; nothing but Python, pip and make
# has to be there. `make PYTHON=python3.12 test` chooses the interpreter, and
# `make EXTRAS=gpu,test test` the TensorFlow that comes with CUDA: `make clean` first,
# where .venv was set up with others.
PYTHON ?= python3
EXTRAS ?= cpu,test

comma := ,
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready-$(subst $(comma),-,$(EXTRAS))
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow lint format compat kernels matrix docs clean

help:
	@echo "make demo       full and sampled softmax: perplexity over seconds, as a plot"
	@echo "make test       lint, types and the tests, in two processes"
	@echo "make test-slow  every test, the slow ones too, with XLA fully optimizing"
	@echo "make compat     every case against tf.nn and against a float64 truth"
	@echo "make EXTRAS=gpu,test kernels  what a GPU would run, found without one"
	@echo "make matrix     tests and checks on every TensorFlow and Keras supported"
	@echo "make docs       the documentation as a site, in site/"
	@echo "make lint       ruff and mypy alone;  make format  let ruff rewrite the files"
	@echo "make clean      remove .venv and everything that was built or cached"

# .ready-cpu-test stands for the extras cpu,test.
$(VENV)/.ready-%: pyproject.toml setup.cfg
	@echo "setting up $(VENV) with [$(subst -,$(comma),$*)] ..."
	@"$(PYTHON)" -m venv $(VENV)
	@$(RUN) -m pip install -qq --disable-pip-version-check -e ".[$(subst -,$(comma),$*)]"
	@touch $@

demo: $(subst test,demo,$(READY))
	@$(RUN) -m examples.next_token $(ARGS)

lint: $(READY)
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

format: $(READY)
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

test: lint
	@$(RUN) -m pytest $(ARGS)

test-slow: $(READY)
	@$(RUN) -m pytest -m "" $(ARGS)

compat: $(READY)
	@$(RUN) -m compat_checks $(ARGS)

kernels: $(READY)
	@$(RUN) -m compat_checks kernels $(ARGS)

matrix: $(VENV)/.ready-matrix
	@$(RUN) -m nox $(ARGS)

docs: $(VENV)/.ready-docs
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
