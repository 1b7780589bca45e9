"""Command `diag`: how the device is, as some forty numbers and words.

Only this summary goes on the wire. The archive that `edge-agent diag collect` writes has log lines, and those are free
text: a library may print a file's name, a value, a row of a sample in them. No filter can promise that it does not,
while a list of named numbers can be read by anyone. So the archive stays with the owner, who may hand it on. Under
privacy terms numbers that follow from private rows in any way, such as the free space of a disk that they lie on, stay
with him too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edge_agent.care.diagnosis import under_terms
from edge_agent.commands.body import Body
from edge_agent.commands.doing import Doing, Done, Finished
from fd_protocol.messages import Command


def diag_handler(body: Body, summary: Callable[[], Mapping[str, str]]) -> Callable[..., Doing]:
    """Return the handler; `summary` looks at the device now, and tells nothing of its data."""

    def handle(_command: Command, *, is_resumed: bool) -> Doing:  # noqa: ARG001 - to look twice does no harm
        told = summary()
        return Finished(Done(under_terms(told) if body.is_under_terms else told))

    return handle
