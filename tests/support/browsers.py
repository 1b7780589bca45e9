"""A browser without a window: the system's own Chromium. Tests that need it skip where it is absent, and say so."""

import shutil
from importlib.util import find_spec

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or find_spec("playwright") is None, reason="no chromium on this system, or no playwright"
)
