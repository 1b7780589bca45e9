"""Is anything private in what a device has said? A search, window by window, through all forms that bytes travel in."""

from __future__ import annotations

import zlib

import numpy as np

MIN_DISTINCT = 5
"""Distinct bytes of a window that says something: runs of zeros stand anywhere."""
_INFLATED_MAX = 1 << 20


class Secrets:
    """Windows of private arrays and texts, by their size in bytes."""

    def __init__(self):
        self.windows: dict[int, set[bytes]] = {}

    def add(self, array, size=8):
        """Every run of `size` bytes in an array."""
        data = np.ascontiguousarray(array).tobytes()
        self._keep(size, (data[start : start + size] for start in range(len(data) - size + 1)))

    def add_labels(self, labels, count=10):
        """Every run of `count` labels, in any type that they could be sent in."""
        for dtype in ("u1", "<i4", "<i8", "<f4", ">i8"):
            array = labels.astype(dtype)
            self._keep(
                count * array.itemsize,
                (array[start : start + count].tobytes() for start in range(len(array) - count + 1)),
            )

    def add_text(self, text):
        self._keep(len(text.encode()), [text.encode()])

    def _keep(self, size, windows):
        self.windows.setdefault(size, set()).update(window for window in windows if len(set(window)) >= MIN_DISTINCT)

    def __len__(self):
        return sum(map(len, self.windows.values()))

    def found_in(self, data):
        """The first secret in the data, as it is or inflated; None: there is none."""
        for form in (data, *inflated(data)):
            for size, windows in self.windows.items():
                for start in range(len(form) - size + 1):
                    if form[start : start + size] in windows:
                        return form[start : start + size]
        return None


def inflated(data):
    """Whatever in the data begins like a zlib stream, or a raw deflate stream behind one, inflated."""
    found = []
    for start, byte in enumerate(data):
        if byte == 0x78:
            decoder = zlib.decompressobj()
            try:
                body = decoder.decompress(data[start:], _INFLATED_MAX)
            except zlib.error:
                continue
            if len(body) >= 8:
                found.append(body)
    return found
