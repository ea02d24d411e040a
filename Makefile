# The commands of the project. `make` alone lists them.

PYTHON  ?= python3
PROFILE ?= quick
ONLY    ?=
DEVICE  ?= cpu
JOBS    ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
ARGS    ?=
FORCE   ?=
WAIT    ?=
RUN     ?=
KEEP    ?=
STAGE   ?= study
SUBMISSIONS ?=
SET     ?= 1
WORKERS ?= 2
TRIAL   ?=

PY := .venv/bin/python
# The stamp's name is a checksum of what the environment was made from (and where: the package is linked to this
# folder), so that a changed lock, and nothing else, makes it anew.
stamp = $(1)/.stamp-$(shell { cat $(2) pyproject.toml; pwd; } 2>/dev/null | cksum | cut -d ' ' -f 1)
PEERS_LOCK := benchmarks/peers/requirements.lock
STAMP := $(call stamp,.venv,requirements.lock)
PEERS := $(call stamp,.venv-peers,$(PEERS_LOCK))
SITE_LOCK := docs/requirements.lock
SITE := $(call stamp,.venv-site,$(SITE_LOCK))
COURSE_LOCK := course/requirements.lock
COURSE := $(call stamp,.venv-course,$(COURSE_LOCK))
HUB_LOCK := course/hub/requirements.lock
HUB := $(call stamp,.venv-hub,$(HUB_LOCK))
comma := ,

.DEFAULT_GOAL := help
.PHONY: help env doctor reproduce report study restore plan why test lint lab course site publish bench bench-peers \
	assignments grade slides hub clean distclean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PROFILE=smoke|quick|paper (now: $(PROFILE))   ONLY=05 or ONLY=05,06   JOBS=n (now: $(JOBS))"
	@echo "  DEVICE=cpu|auto|cuda|mps (now: $(DEVICE); training runs: rows of each are kept apart)"
	@echo "  FORCE=1 (execute what could be kept, too)   WAIT=1 (while another run holds the clone)"
	@echo "  KEEP=1 (copy rows, pictures and times to what git tracks, to commit them)"
	@echo "  PYTHON=python3.12 (to make .venv)   ARGS=\"--parameter NAME=VALUE\" (for the notebooks)"

env: $(STAMP)  ## make .venv from requirements.lock (all others do, when it is missing or old)

# Without an environment, too: then by the Python that would make it.
doctor:  ## say whether this machine is ready, and what to do
	@python=$(PY); $$python -c '' 2>/dev/null || python=$(PYTHON); PYTHONPATH=lib $$python -m reproduce.doctor

reproduce: $(STAMP)  ## run the notebooks, train what they need, summarize: PROFILE, ONLY, JOBS, DEVICE
	@$(PY) -m reproduce.cli reproduce --profile "$(PROFILE)" --only "$(ONLY)" --device "$(DEVICE)" --jobs "$(JOBS)" \
		$(if $(FORCE),--force) $(if $(WAIT),--wait) $(if $(KEEP),--keep) $(ARGS)

report: $(STAMP)  ## the papers' claims and tables beside the stored rows, as one page: PROFILE, KEEP=1
	@$(PY) -m reproduce.cli report --profile "$(PROFILE)" --device "$(DEVICE)" $(if $(KEEP),--keep) $(if $(WAIT),--wait)

study: $(STAMP)  ## train what PROTOCOL.md lists and is not stored: STAGE=rates|ladders|study|..., ONLY=mnist_ode, KEEP=1
	@$(PY) -m reproduce.cli study "$(STAGE)" --only "$(ONLY)" --jobs "$(JOBS)" $(if $(KEEP),--keep)

restore: $(STAMP)  ## bring the study's committed rows whose key is still right into data/results: ONLY=mnist_ode
	@$(PY) -m reproduce.cli restore --only "$(ONLY)"

plan: $(STAMP)  ## say what `make reproduce` would train, and about how long: PROFILE, JOBS
	@$(PY) -m reproduce.cli plan --profile "$(PROFILE)" --device "$(DEVICE)" --jobs "$(JOBS)"

why: $(STAMP)  ## say what changed since a stored row was made: RUN=mnist_ode/local_biased/10@1e-05
	@$(PY) -m reproduce.cli why "$(RUN)" --profile "$(PROFILE)" --device "$(DEVICE)"

test: lint  ## lint, then all tests, each notebook in the smoke profile among them
	$(PY) -m pytest -n $(JOBS) --dist loadgroup

lint: $(STAMP)  ## formatting, lint (notebooks included) and types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

lab: $(STAMP)  ## open your copies of the lessons (my_lessons/) in JupyterLab
	@$(PY) -m reproduce.cli lab
	$(PY) -m jupyterlab --config=lib/reproduce/notebooks/jupyter_config.py

course: $(STAMP)  ## make the lessons for students, with solutions, for instructors, in build/course: ONLY=05
	@$(PY) -m reproduce.cli course --only "$(ONLY)"

# Sphinx runs in an environment of its own and finds PyTorch, which the API pages import, in .venv.
SPHINX = .venv-site/bin/python -m sphinx -q -W --keep-going -j $(JOBS) -d build/site-doctrees -c docs build/site-source \
	build/site && echo "the site: build/site/index.html"
site: $(STAMP) $(SITE)  ## the site from executed notebooks, to build/site/index.html: PROFILE, ONLY
	@$(PY) -m reproduce.cli site --profile "$(PROFILE)" --only "$(ONLY)"
	@$(SPHINX)

publish: $(STAMP) $(SITE)  ## the site from what git tracks; nothing is executed or trained
	@$(PY) -m reproduce.cli site --kept
	@$(SPHINX)

# One or some of them: ONLY=solve,growth.
BENCHES = $(if $(ONLY),$(patsubst %,benchmarks/bench_%.py,$(subst $(comma), ,$(ONLY))),$(wildcard benchmarks/bench_*.py))
bench: $(STAMP)  ## the benchmarks, on one thread, to build/bench: ONLY=solve,growth, KEEP=1
	@test -n "$(BENCHES)" || { echo "make: there is no benchmark in benchmarks/" >&2; exit 1; }
	@set -e; for file in $(BENCHES); do echo "$$file"; OMP_NUM_THREADS=1 $(PY) "$$file"; done
	@$(if $(KEEP),$(PY) benchmarks/results.py)

bench-peers: $(PEERS)  ## our speed beside diffrax, torchode, torchdiffeq, torchsde; makes .venv-peers: KEEP=1
	@OMP_NUM_THREADS=1 .venv-peers/bin/python benchmarks/peers/bench_peers.py
	@$(if $(KEEP),.venv-peers/bin/python benchmarks/results.py)

assignments: $(COURSE)  ## the problem sets as students get them, to my_class/release; makes .venv-course
	@.venv-course/bin/python -m reproduce.grading.cli release

grade: $(STAMP) $(COURSE)  ## grade a folder of submissions, each in a sandbox: SUBMISSIONS=folder, SET=1|2|3, WORKERS=2
	@test -n "$(SUBMISSIONS)" || { echo "make: name a folder: make grade SUBMISSIONS=folder SET=1" >&2; exit 2; }
	@.venv-course/bin/python -m reproduce.grading.cli grade "$(SUBMISSIONS)" --set "$(SET)" --workers "$(WORKERS)"

hub: $(STAMP) $(HUB)  ## JupyterHub for a class on this machine (docs/instructors/serving.md): TRIAL=1; needs npm once
	@$(call npm,.venv-hub/proxy,course/hub)
	@$(PY) -m ipykernel install --prefix .venv-hub --name python3 --display-name regnde > /dev/null
	@REGNDE_HUB_TRIAL=$(TRIAL) .venv-hub/bin/jupyterhub --config course/hub/jupyterhub_config.py

# Into a folder, from the folder of a lock; npm refuses a package whose checksum is not the lock's.
npm = test -d $(1) || { command -v npm > /dev/null || { echo "make: npm is needed once" >&2; exit 2; }; \
	mkdir -p $(1).part && cp $(2)/package*.json $(1).part && \
	npm ci --prefix $(1).part --ignore-scripts --no-audit --no-fund && mv $(1).part $(1); }
REVEAL := .venv-course/reveal-$(shell cat course/slides/package-lock.json 2>/dev/null | cksum | cut -d ' ' -f 1)
slides: $(COURSE)  ## three decks from the lessons, with speaker's notes and as PDF, to build/slides; needs npm once
	@$(call npm,$(REVEAL),course/slides)
	@.venv-course/bin/python -m reproduce.slides.make --reveal $(REVEAL)/node_modules/reveal.js/dist --profile "$(PROFILE)"

clean:  ## remove build/ and caches (not the environments, not data/)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
	find lib tests benchmarks notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove the environments too (not my_class/)
	rm -rf .venv .venv.lock .venv-peers .venv-peers.lock .venv-site .venv-site.lock \
		.venv-course .venv-course.lock .venv-hub .venv-hub.lock lib/*.egg-info

# An install that dies in the middle leaves no stamp: the old one goes first, the new one comes last. Of two at once
# the second waits: the shell's file 9 carries the lock, which the system takes back however the shell ends.
LOCK = 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX $(1))'
$(STAMP): FROM = requirements.lock
$(PEERS): FROM = $(PEERS_LOCK)
$(SITE): FROM = $(SITE_LOCK)
$(COURSE): FROM = $(COURSE_LOCK)
$(HUB): FROM = $(HUB_LOCK)
$(STAMP) $(PEERS) $(SITE) $(COURSE) $(HUB):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "make: Python 3.11 or newer is needed; '$(PYTHON)' is $$({ $(PYTHON) --version; } 2>/dev/null || echo missing)." >&2; \
		echo "make: name another one, for example: make PYTHON=python3.12" >&2; exit 2; }
	@set -e; exec 9> $(@D).lock; $(PYTHON) -c $(call LOCK,| fcntl.LOCK_NB) 2>/dev/null || { \
		echo "make: another make is installing into $(@D); waiting until it has ended"; $(PYTHON) -c $(call LOCK); }; \
	if test -e $@; then exit 0; fi; \
	rm -f $(@D)/.stamp*; \
	$(@D)/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear $(@D); \
	echo "installing $(FROM) into $(@D): once, some minutes"; \
	set -x; \
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $(FROM); \
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	touch $@
