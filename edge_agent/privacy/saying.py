"""What a device may say of its work under privacy terms: nothing that a private row could have changed.

Soft labels, and all that follows from them and public data, follow from weights that were paid for. A loss on private
rows, an accuracy on some of them, their number, or what a library had to say when it failed over them, do not. So of a
failure there are these words, none of which depends on what the rows are:

    epsilon_spent      weights that were paid for cost more than is asked, or another training would pass `epsilon_max`
    clock_unset        no privacy period can be told from another
    no_private_step    the bundle or the runtime has no clipping graph
    private_probes     the round asks for a look at private rows: its probes are the labels
    ledger_damaged     a person has to look
    weights_lost       what this period paid for is gone; it goes on with the next
    failed             anything else
"""

from __future__ import annotations

EPSILON_SPENT, CLOCK_UNSET, NO_PRIVATE_STEP = "epsilon_spent", "clock_unset", "no_private_step"
PRIVATE_PROBES, LEDGER_DAMAGED, WEIGHTS_LOST = "private_probes", "ledger_damaged", "weights_lost"
FAILED = "failed"
REFUSALS = frozenset({EPSILON_SPENT, CLOCK_UNSET, NO_PRIVATE_STEP, PRIVATE_PROBES, LEDGER_DAMAGED, WEIGHTS_LOST})

AGREEMENT = "agreement"
"""Share of probes on which a device says what the consensus says."""


def public_reason(reason: str) -> str:
    """Return what may be said of a failure: a word of ours, or that there was one."""
    return reason if reason in REFUSALS else FAILED
