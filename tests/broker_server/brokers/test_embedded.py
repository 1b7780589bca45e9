"""The demo's broker asks nobody who they are: it must not be reached from anywhere else."""

import inspect
import socket
from pathlib import Path

import pytest

from broker_server.brokers import embedded as module
from broker_server.brokers.embedded import embedded_broker
from broker_server.brokers.loopback import LOOPBACK

pytest.importorskip("iotcore")
LISTENING = "0A"


def listeners(port):
    """Local addresses of this machine at which somebody listens on `port`, as the kernel writes them."""
    lines = [
        line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]
    ]
    found = (line[1].split(":") for line in lines if line[3] == LISTENING)
    return {address for address, its_port in found if int(its_port, 16) == port}


def own_address():
    """An address of this machine beside loopback; None: it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        return probe.getsockname()[0]


def test_it_listens_on_loopback_and_nowhere_else(tmp_path):
    with embedded_broker(tmp_path) as broker:
        assert listeners(broker.port) == {"0100007F"}
        elsewhere = own_address()
        if elsewhere not in (None, LOOPBACK):
            with pytest.raises(OSError, match=r"refused|unreachable"):
                socket.create_connection((elsewhere, broker.port), timeout=5)


def test_nobody_can_ask_for_another_address():
    assert list(inspect.signature(embedded_broker).parameters) == ["folder", "port"]
    assert module._CONFIG.count("{host}") == module._CONFIG.count("listen") == 1


@pytest.mark.parametrize("port", ["0.0.0.0:1883", '1883"\nlisten = "0.0.0.0:1883'])
def test_a_port_is_a_number_and_carries_no_address(tmp_path, port):
    with pytest.raises(ValueError, match="invalid literal"):
        embedded_broker(tmp_path, port)
