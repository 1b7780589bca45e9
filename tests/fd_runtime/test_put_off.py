from __future__ import annotations

import subprocess
import sys

import pytest


def say(code):
    """Run `code` in a process of its own, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


PUT_OFF = """
import sys
from fd_runtime.put_off import put_off
with put_off("xml.sax.saxutils"):
    import xml.sax.saxutils
    kept = xml.sax.saxutils
"""


def test_a_module_that_is_put_off_is_not_read():
    assert say(f"{PUT_OFF}print('urllib.request' in sys.modules, 'xml.sax.saxutils' in sys.modules)") == [
        "False", "False",
    ]  # fmt: skip


def test_it_is_read_when_it_is_touched_and_is_the_real_one():
    code = f"{PUT_OFF}print(kept.escape('<'), hasattr(kept, 'nothing'), 'urllib.request' in sys.modules)"
    assert say(code) == ["&lt;", "False", "True"]


def test_whoever_imports_it_afterwards_gets_the_real_one_at_once():
    code = f"{PUT_OFF}from xml.sax.saxutils import escape\nprint(escape('<'), xml.sax.saxutils is not kept)"
    assert say(code) == ["&lt;", "True"]


def test_a_module_that_is_there_already_stays():
    code = "import xml.sax.saxutils as before\n" + PUT_OFF + "print(kept is before, 'xml.sax.saxutils' in sys.modules)"
    assert say(code) == ["True", "True"]


@pytest.mark.parametrize("touch", ["getproxies", "proxy_bypass"])
def test_paho_would_still_find_what_it_asks_for(touch):
    code = f"""
import sys, fd_runtime.links.mqtt_connection as home
print('urllib.request' in sys.modules, callable(home.paho.urllib.request.{touch}), 'urllib.request' in sys.modules)
"""
    assert say(code) == ["False", "True", "True"]
