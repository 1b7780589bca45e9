# Three words: demo, check, test. Each makes its own environment in .venv on first use.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
TFLITE_VENV := .venv-tflite
export ORT_DISABLE_TELEMETRY = 1

.PHONY: demo check test test-arm64 test-boot deb deb-locks release broker-guard sbom audit tflite-runtime format clean

demo: $(VENV)/.sim
	$(BIN)/fleet-sim demo

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Three at a time on two cores: most of the time tests wait for processes that they have started. One that hangs fails
# after ten minutes, with a traceback of each of its threads, and the others go on.
test: $(VENV)/.dev tflite-runtime mosquitto card-tools
	$(BIN)/pytest -n 3 --dist worksteal -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true

# The agent's package at work on Debian 12 and 13 of arm64, emulated, and a whole first boot of a flashed image
# (docs/flash.md). Both need root, and make root file systems in ROOTS, once: 15 to 30 minutes. Packages are made of this
# tree, or taken from the folder in FEDISTILL_DEBS.
ROOTS ?= build/roots
test-arm64 test-boot: $(VENV)/.dev mosquitto card-tools arm64-tools
	FEDISTILL_ROOTS="$(abspath $(ROOTS))" $(BIN)/pytest -n 0 -rs tests/deploy/test_$(@:test-%=%).py

# Debian packages in dist/deb, of the agent and the server for every Python and processor; with the size of each. Some
# of them: make deb DEB='--package fedistill-agent --python 3.11 --arch arm64'. docs/packages.md
deb: | $(VENV)/bin/python
	$(BIN)/python -m deploy.deb build $(DEB)

# What they hold, resolved anew from pyproject.toml.
deb-locks: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m deploy.deb lock $(DEB)

# The broker's guard against subscriptions without end (deploy/mosquitto/README.md): apt install gcc mosquitto-dev libmosquitto-dev
broker-guard:
	@mkdir -p dist
	$(CC) -shared -fPIC -O2 -Wall -Wextra -o dist/fedistill_guard.so deploy/mosquitto/guard/guard.c

# Bills of materials (CycloneDX 1.6) of every package in dist/sbom, by its lock, with licences.
sbom: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7,<8'
	@mkdir -p dist/sbom
	@for lock in deploy/deb/locks/fedistill-*.txt; do \
		out=dist/sbom/$$(basename $$lock .txt).cdx.json; \
		$(BIN)/cyclonedx-py requirements $$lock --pyproject pyproject.toml --output-reproducible --of JSON -o $$out 2>/dev/null \
		|| exit 1; \
	done
	@$(BIN)/python -m deploy.supply complete dist/sbom/fedistill-*.cdx.json

# Known vulnerabilities of what is locked, by OSV's export of PyPI, without a network: make audit OSV=all.zip
audit: $(VENV)/.dev
	$(BIN)/python -m deploy.supply audit $(OSV)

# What others install: wheel, source, all packages, install.sh, notes and checksums, in dist/fedistill-VERSION, of a
# commit with the tag vVERSION. Of the tree as it is: make release RELEASE=--draft. docs/packages.md
release: | $(VENV)/bin/python
	$(BIN)/python -m deploy.release $(RELEASE)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(TFLITE_VENV) out dist build

$(VENV)/bin/python:
	@sh deploy/setup/venv.sh $(PYTHON) $(VENV)

$(VENV)/.sim: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[sim]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.sim

# tflite-runtime 2.14 needs NumPy 1, so it lives beside us; bundles are proven on it where it is.
tflite-runtime: $(TFLITE_VENV)/.done

$(TFLITE_VENV)/.done: deploy/setup/tflite_runtime.sh
	@sh deploy/setup/tflite_runtime.sh $(TFLITE_VENV)
	@mkdir -p $(TFLITE_VENV) && touch $@

# The tests of TLS, ACLs and crashes want the real broker; without it they skip and say so.
.PHONY: mosquitto
mosquitto:
	@sh deploy/setup/mosquitto.sh

# The tests of flash make images of cards, without mounting any.
.PHONY: card-tools
card-tools:
	@sh deploy/setup/card_tools.sh

# The tests on arm64 run its programs, and a whole machine of it.
.PHONY: arm64-tools
arm64-tools:
	@sh deploy/setup/arm64_tools.sh
