# Three words: demo, check, test. Each makes its own environment in .venv on first use.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
TFLITE_VENV := .venv-tflite
export ORT_DISABLE_TELEMETRY = 1

.PHONY: demo check test deb deb-locks release tflite-runtime format clean

demo: $(VENV)/.sim
	$(BIN)/fleet-sim demo

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.dev tflite-runtime mosquitto
	$(BIN)/pytest -n 2 --dist worksteal

# Debian packages in dist/deb, of the agent and the server for every Python and processor; with the size of each. Some
# of them: make deb DEB='--package fedistill-agent --python 3.11 --arch arm64'. docs/packages.md
deb: | $(VENV)/bin/python
	$(BIN)/python -m deploy.deb build $(DEB)

# What they hold, resolved anew from pyproject.toml.
deb-locks: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m deploy.deb lock $(DEB)

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
