"""`edge-agent enrol`: get the device's certificate, or renew it, now. The running device does both by itself."""

from __future__ import annotations

import argparse
import os

from edge_agent.cli.output import tell
from edge_agent.cli.place import config_path
from edge_agent.configuration import load_settings
from edge_agent.enrolment.errand import EXIT_CODES, Ending, NoEnrolmentError, visit
from edge_agent.enrolment.renewal import Due


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(config_path(arguments))
    if settings.identity is None:
        raise NoEnrolmentError("there is no [enrolment] in the settings: url, ca_file, token_file")
    os.umask(0o077)
    kind = Due.RENEW if arguments.renew else Due.ENROL
    outcome = visit(settings, kind)
    device = settings.device.id
    told = {"device": device, "ending": outcome.ending.value, "reason": outcome.reason}
    words = "has a certificate" if outcome.ending is Ending.DONE else f"has no new certificate ({outcome.ending.value})"
    tell(arguments, told, f"{device} {words}: {outcome.reason}")
    return EXIT_CODES[outcome.ending]
