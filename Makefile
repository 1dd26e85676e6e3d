# What a newcomer needs, one word each. Everything is installed into $(VENV), and only once.
SHELL := bash
VENV ?= .venv
PY := $(VENV)/bin/python
LOG := $(VENV)/install.log
comma := ,
.DEFAULT_GOAL := help
.NOTPARALLEL: # two targets would install into one environment at once

# A prompt may hold quotes, dollars and backticks. It reaches the command as it was typed, through
# the environment, so that neither make nor the shell reads anything in it.
override PROMPT := $(value PROMPT)
export PROMPT

# Some machines forbid it, but without bytecode every start would compile torch's modules again.
unexport PYTHONDONTWRITEBYTECODE

# $(call install,WHAT,EXTRAS): the log keeps all that pip says; a failure shows its last error.
# With --no-compile, the thousands of modules that are never imported are never compiled.
define install
@echo "Installing $(1) into $(VENV), this once ..."
@set -o pipefail; $(PY) -m pip install --no-compile --disable-pip-version-check --no-input \
    --constraint constraints.txt --editable '.[$(2)]' 2>&1 | tee $(LOG) \
  | awk -v tty="$$(test -t 1 && echo yes)" \
    'tty && $$1 ~ /^(Collecting|Processing|Installing)$$/ {printf "\r\033[K  %s %.60s", $$1, $$2; fflush()} \
     END {if (tty) printf "\r\033[K"}' \
  || { reason="$$(sed -n 's/.*ERROR: //p' $(LOG) | tail -n 1)"; \
       ! grep -q 'connection broken by' $(LOG) || reason="the package index cannot be reached"; \
       echo "Installing $(1) failed: $${reason:-pip stopped} (all it said: $(LOG))" >&2; exit 1; }
endef

.PHONY: help prompt image serve mcp test lint bench pictures

help:
	@printf '\n  \033[1mCygnet\033[0m  a prompt in, a picture out\n\n'
	@printf '  \033[36m%-32s\033[0m %s\n' \
	  'make image PROMPT="a red fox"' 'draw it with the checkpoint that ships; into outputs/' \
	  'make test' "run the tests; ARGS=\"-m 'not slow'\" leaves the slow ones out" \
	  'make lint' 'ruff, formatting and types' \
	  'make bench' 'ours beside a plain diffusers script, on this machine' \
	  'make pictures' "draw the README's pictures again" \
	  'make serve' 'open the page, and answer over HTTP, on this machine' \
	  'make mcp' 'be a tool of an MCP client; ARGS=tools lists what it offers'
	@printf '\n  More for image: ARGS="--seed 7 --checkpoint cygnet-tiny-fast"; docs/local.md has the rest.\n\n'

image: prompt $(VENV)/.local
	@$(VENV)/bin/cygnet generate $(ARGS) -- "$$PROMPT"

prompt: # before anything is installed
	@test -n "$$PROMPT" || { echo 'Say what to draw: make image PROMPT="a red fox, 3d render"' >&2; exit 2; }

test: $(VENV)/.dev # the page is tested in a browser: the machine's, or playwright's own
	@$(PY) -m tests.chromium
	@$(PY) -m pytest $(ARGS)

lint: $(VENV)/.dev
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m pyright --project pyproject.toml --pythonpath $(PY)

bench: $(VENV)/.local
	@set -o pipefail; $(PY) -m benchmarks.local $(ARGS) | tee $(VENV)/bench.md
	@mv $(VENV)/bench.md benchmarks/local.md
	@$(PY) -m docs.blocks

pictures: $(VENV)/.dev # the first command is the one in README.md
	@$(VENV)/bin/cygnet generate --force --out docs/images/fox.png \
	  --seed 7 -- "a red fox, 3d render, on a sky blue background"
	@$(PY) -m training.contact_sheet shared/weights/cygnet-tiny docs/images/contact-sheet.png
	@$(PY) -m docs.screenshots

serve: $(VENV)/.serve
	@$(VENV)/bin/cygnet serve $(ARGS)

mcp: $(VENV)/.mcp
	@$(VENV)/bin/cygnet mcp $(ARGS)

$(VENV)/.local: $(PY) pyproject.toml constraints.txt
	$(call install,Cygnet for local use,local)
	@touch $@

$(VENV)/.serve: $(PY) pyproject.toml constraints.txt
	$(call install,Cygnet with its server and its page,space)
	@touch $(VENV)/.local $(VENV)/.mcp $@

$(VENV)/.mcp: $(PY) pyproject.toml constraints.txt
	$(call install,Cygnet with its MCP server,local$(comma)mcp)
	@touch $(VENV)/.local $@

$(VENV)/.dev: $(PY) pyproject.toml constraints.txt
	$(call install,Cygnet with its development tools,dev)
	@touch $(VENV)/.local $(VENV)/.serve $(VENV)/.mcp $@

$(PY):
	@for candidate in $(or $(PYTHON),python3.11 python3 python3.12 python3.13 python3.14 python); do \
	   $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	   candidate=; \
	 done; \
	 test -n "$$candidate" || { echo "Making $(VENV) failed: no Python 3.11 or newer on the PATH." >&2; exit 1; }; \
	 $$candidate -c 'import ensurepip, venv' 2>/dev/null || { echo "Making $(VENV) failed: $$candidate \
	has no venv module; on Debian and Ubuntu: apt install python3-venv." >&2; exit 1; }; \
	 reason="$$($$candidate -m venv --clear $(VENV) 2>&1)" \
	   || { rm -rf $(VENV); echo "Making $(VENV) failed: $$(tail -n 1 <<<"$$reason")" >&2; exit 1; }
