r"""Where a value stands in a JSON document: keys and places, parted by dots.

temperature                          {"temperature": 27.34}
AM2301.Temperature                   {"AM2301": {"Temperature": 24.6}}
ENERGY.Power.1                       {"ENERGY": {"Power": [12, 40]}}
a\.b                                 {"a.b": 1}: a backslash takes the meaning off a dot
"""

from __future__ import annotations

import re
from typing import Any

NOTHING = object()
"""What `find` returns where nothing stands; None is JSON's null."""
_DOT = re.compile(r"(?<!\\)\.")


def find(document: Any, path: str) -> Any:
    """Return what stands at `path`, or `NOTHING`."""
    for part in _DOT.split(path):
        key = part.replace("\\.", ".")
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list) and key.isascii() and key.isdigit() and int(key) < len(document):
            document = document[int(key)]
        else:
            return NOTHING
    return document
