"""A bundle after a bundle, on one device: whether what was learnt with the one is anything for the other.

A tail that was trained on a device reads what one frozen part says and nothing else, and its parameters stand in one
order. Where both are the same, and whoever made the new bundle says that they belong together (`keeps_tail`), a device
goes on with them; else it begins with the new bundle's own and learns anew.

What is deliberately absent: whether the graph between features and logits computes the same. No digest tells, for the
file has the parameters in it; the device tries it on its own rows.
"""

from __future__ import annotations

from fd_protocol.manifest import Manifest, Role

_FROZEN = (Role.BACKBONE, Role.BACKBONE_TFLITE)


def unfit(before: Manifest, after: Manifest) -> str:
    """Return why what was learnt with one bundle is nothing for the next one, in a few words; empty: it is."""
    if not after.keeps_tail:
        return "the new bundle does not keep it"
    if after.layout != before.layout:
        return "the new tail has another shape"
    if after.features != before.features or any(_differs(role, before, after) for role in _FROZEN):
        return "the new backbone is another one"
    return ""


def _differs(role: Role, before: Manifest, after: Manifest) -> bool:
    """Whether both have such a file, and not the same; a twin for another runtime may come or go."""
    first, second = before.files.get(role), after.files.get(role)
    return first is not None and second is not None and first.sha256 != second.sha256
