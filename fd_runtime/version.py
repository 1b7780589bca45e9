"""The version of this distribution, as in pyproject.toml (a test holds the two together).

To ask the installed metadata for it costs a process a megabyte: `importlib.metadata` brings zip files, CSV and mail.
"""

from __future__ import annotations

VERSION = "0.1.0"
