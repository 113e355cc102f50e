# Every command there is. `make help` prints this list.

PYTHON ?= python3
BIN := .venv/bin
STRICT ?= 0
CODE := handler tests benchmarks docs config
# A host name in .env adds the file for TLS, unless COMPOSE_FILE there names it already.
TLS := $(shell grep -qs '^CAMSERVE_HOST=.' .env && ! grep -qs '^COMPOSE_FILE=.*tls' .env && echo :docker-compose.tls.yml)
FILES := $(or $(COMPOSE_FILE),$(shell sed -n 's/^COMPOSE_FILE=//p' .env 2>/dev/null),docker-compose.yml)
COMPOSE = $(if $(TLS),COMPOSE_FILE=$(FILES)$(TLS) )$(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.DEFAULT_GOAL := help
.PHONY: help install serve start stop stack stack-down archive test chaos soak sbom audit lint format bench pictures dashboard clean

help: ## Print this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-10s %s\n", $$1, $$2}'

install: .venv/installed ## Create the virtual environment and install everything from PyPI

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
		echo "camserve: Python 3.11 is needed and this is $$($(PYTHON) -V 2>&1); name one: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "camserve: this Python has no venv module; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "Installing from PyPI: some 5 GB with CUDA, a few minutes ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

archive: model_store/classifier.mar ## Build model_store/classifier.mar, the embedded default model

model_store/classifier.mar: .venv/installed config/model-config.yaml $(shell find handler -name '*.py' -o -name '*.json' -o -path '*/page/*' -type f)
	$(BIN)/camserve archive

serve: archive ## Run TorchServe and the gateway on port 8080 until Ctrl-C
	@$(BIN)/camserve serve

start: archive ## The same in the background
	@$(BIN)/camserve start

stop: ## Stop what `make start` began
	@$(BIN)/camserve stop

stack: .env ## The same in containers, with Prometheus and Grafana (docker-compose)
	$(COMPOSE) up -d --build
	@$(COMPOSE) exec -T gateway sh -c 'for try in $$(seq 60); do case $$(curl --silent --output /dev/null \
		--write-out "%{http_code}" "http://127.0.0.1:$$CAMSERVE_LISTEN/ready") in 200|401) exit;; esac; sleep 1; done; exit 1'
	@echo "The gateway is at $(or $(TLS:%=https://$$(sed -n 's/^CAMSERVE_HOST=//p' .env)),$$($(COMPOSE) port gateway 8080))."
	@echo "Grafana is at $$($(COMPOSE) port grafana 3000): user admin, password in .env."

stack-down: .env ## Stop the containers; what Prometheus and Grafana keep stays in volumes
	$(COMPOSE) down

.env:
	@umask 077 && sed "s/^GRAFANA_ADMIN_PASSWORD=$$/&$$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')/" .env.example > $@
	@echo "Wrote .env, the settings of the stack, with a random password for Grafana."

# What starts no server runs in two processes of one thread each. Threads that wait spin for half a millisecond, not for
# ten: many processes share the cores here.
test: export GOMP_SPINCOUNT = 10000
test: export CAMSERVE_STRICT = $(STRICT)
test: .venv/installed ## Run all tests; STRICT=1 makes a skipped test a failure
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not live" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m live

chaos: .venv/installed ## Hostile input, faults, overload and isolation in their long forms (tests/reliability)
	$(BIN)/python -m pytest tests/reliability tests/live/test_overload.py --long --ignore tests/reliability/test_soak.py -s

soak: .venv/installed ## An hour of mixed traffic; memory, threads and latency have to stay flat
	$(BIN)/python -m pytest tests/reliability/test_soak.py --long -s

sbom: .venv/installed .audit/installed ## Write sbom.json, what is installed as CycloneDX
	.audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o sbom.json $(BIN)/python

audit: .venv/installed .audit/installed ## Look up the installed packages in PyPI's list of known vulnerabilities
	$(BIN)/python -m pip freeze --exclude-editable > .audit/requirements.txt
	.audit/bin/pip-audit --strict --no-deps --disable-pip -r .audit/requirements.txt

# In an environment of their own: they look at the other one.
.audit/installed: Makefile
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0 pip-audit==2.10.1
	@touch $@

lint: .venv/installed ## Style, types and import contracts
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: .venv/installed ## Put the code into its standard form
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

bench: .venv/installed ## Measure what explanations cost; writes benchmarks/RESULTS.md (two hours)
	$(BIN)/python benchmarks/forward.py
	$(BIN)/python benchmarks/forward.py --batch 1
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/gpu.py
	$(BIN)/python benchmarks/watching.py
	$(BIN)/python benchmarks/sizing.py
	$(BIN)/python benchmarks/overload.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/memory.py

dashboard: .venv/installed ## Write Grafana's dashboard again
	$(BIN)/python config/grafana/dashboard.py

pictures: .venv/installed ## Draw the documents' pictures again
	$(BIN)/python docs/draw.py

clean: ## Stop what runs and remove what was built, but not the virtual environment
	@if [ -x $(BIN)/camserve ]; then $(BIN)/camserve stop; fi
	rm -rf model_store/classifier.mar .camserve .audit sbom.json overlay.jpg .mypy_cache .ruff_cache .pytest_cache
