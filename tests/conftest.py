"""What holds for the whole suite: no property test fails for a busy machine; a test may say what it counted.

FEDISTILL_EXAMPLES: how many examples a property test looks for, where a processor is emulated.
"""

import logging
import os
import sys

import pytest
from hypothesis import settings

from tests.support.once import keep_in

# Several tests share few processors, and their matrices are small: a second thread would only wait. Before numpy comes.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Containers like to forbid byte code: each of the thousands of processes that tests start would compile all it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_EXAMPLES = os.environ.get("FEDISTILL_EXAMPLES")
_FEWER = {"max_examples": int(_EXAMPLES)} if _EXAMPLES else {}
settings.register_profile("fedistill", deadline=None, **_FEWER)
settings.load_profile("fedistill")


@pytest.fixture(scope="session", autouse=True)
def _made_once(tmp_path_factory):
    """All processes of a run share what is made once; xdist gives each a folder in that of the run."""
    own = tmp_path_factory.getbasetemp()
    keep_in((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "made-once")


@pytest.fixture
def says(record_property):
    """Call it with a line that the end of the run shall tell, whichever process the test runs in."""
    return lambda line: record_property("says", line)


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", [])
    for name, line in (one for report in reports for one in report.user_properties):
        if name == "says":
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _process_as_before():
    """A program sets up its own process, logs and environment; the next test has those that pytest was started with."""
    root, environment = logging.getLogger(), dict(os.environ)
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in {*environment, *os.environ}:
        if name == "PYTEST_CURRENT_TEST" or os.environ.get(name) == environment.get(name):
            continue
        os.environ.pop(name, None)
        if name in environment:
            os.environ[name] = environment[name]
