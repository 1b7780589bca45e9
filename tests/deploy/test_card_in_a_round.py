"""What a flashed card holds is enough to enrol and take part: the short form of `test_boot`, in seconds.

The card is made by the program and read again with mtools; in the place of the emulated machine an agent of this one
starts with what it found there, beside a real broker and a real server. No package, no root, no kernel.
"""

import pytest

from edge_agent.cli.place import CONFIG_NAME, SYSTEM_CONFIG
from edge_agent.flash.payload import FOLDER
from tests.support.brokers import needs_mosquitto
from tests.support.card_images import CIDATA, MIB, needs_card_tools, run
from tests.support.patience import wait_until
from tests.support.plants import AGENT, MINUTES_S, NEIGHBOUR, Plant, started

pytestmark = [pytest.mark.system, needs_card_tools, needs_mosquitto]

DEVICE = "press-3"


def test_a_card_holds_all_that_a_device_needs_to_enrol_and_take_part(tmp_path):
    package = tmp_path / "fedistill-agent_0.1.0-1+py3.11_amd64.deb"
    package.write_bytes(b"!<arch>\n")
    with Plant(tmp_path / "plant").open() as plant:
        blank = CIDATA.make(tmp_path / "blank.img")
        card = plant.card(blank, DEVICE, package=package, host="localhost", out=tmp_path / "card.img")
        run("mcopy", "-s", "-i", f"{card}@@{4 * MIB}", f"::/{FOLDER}/etc", tmp_path)
        etc = tmp_path / "etc"
        settings = (etc / CONFIG_NAME).read_text()
        for there, here in ((SYSTEM_CONFIG.parent, etc), ("/var/lib/fedistill", "state"), ("/run/fedistill", "run")):
            settings = settings.replace(str(there), str(here))
        (etc / CONFIG_NAME).write_text(settings)
        (etc / "enrolment.token").chmod(0o600)
        with started([*AGENT, "run", "--config", etc / CONFIG_NAME], tmp_path / "log"):
            wait_until(lambda: [NEIGHBOUR, DEVICE] in plant.heard().values(), MINUTES_S)
        assert "Traceback" not in (tmp_path / "log").read_text()
        assert plant.audit(DEVICE) == ["token", "enrolled"]
