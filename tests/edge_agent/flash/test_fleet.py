"""A table of a hundred cards: read whole and refused whole, and what is done stays done."""

from datetime import datetime, timezone

import pytest

from edge_agent.flash.errors import OrderError
from edge_agent.flash.fleet import Done, Log, read_fleet
from edge_agent.flash.orders import Order

COMMON = Order("", "plant-7", broker="mqtt.example", user="ada", wifi="Werk", wifi_country="DE")


def fleet(tmp_path, text, common=COMMON):
    (tmp_path / "fleet.csv").write_text(text, encoding="utf-8")
    return read_fleet(tmp_path / "fleet.csv", common)


def test_a_row_is_a_device_and_an_empty_cell_what_the_options_say(tmp_path):
    one, two = fleet(tmp_path, "device,host,wifi,wifi_hidden,kit\npress-1,,,yes,kits/1\npress-2,zwei,Lager,,kits/2\n")
    assert (one.device, one.host, one.wifi, one.wifi_hidden) == ("press-1", "", "Werk", True)
    assert (two.device, two.host, two.wifi, two.wifi_hidden) == ("press-2", "zwei", "Lager", False)
    assert (one.federation, two.broker, two.user) == ("plant-7", "mqtt.example", "ada")
    assert (one.kit, two.kit) == (tmp_path / "kits/1", tmp_path / "kits/2")


def test_a_table_that_a_spreadsheet_wrote_is_read(tmp_path):
    (one,) = fleet(tmp_path, '\ufeffdevice, wifi, wifi_password\r\npress-1,"Werk, 7","a ""b"" c d e"\r\n')
    assert (one.wifi, one.wifi_password) == ("Werk, 7", 'a "b" c d e')


REFUSED = {
    "unknown column": ("device,hosst\na,b\n", "unknown column 'hosst'.*host"),
    "no column for the device": ("host\na\n", "device must be one"),
    "no device in a row": ("device,host\n,b\n", "fleet.csv:2: no device"),
    "too many cells": ("device,host\na,b,c\n", "as many cells"),
    "too few cells": ("device,host\na\n", "as many cells"),
    "no row": ("device\n", "no device in it"),
    "nothing": ("", "device must be one"),
    "a device twice": ("device\na\nb\na\n", "2 rows with device a"),
    "a host twice": ("device,host\na,x\nb,x\n", "2 rows with host x"),
    "a host that is another's id": ("device,host\na,\nb,a\n", "2 rows with host a"),
    "a token twice": ("device,token\na,secret\nb,secret\n", "2 rows with token the same"),
    "a token's file twice": ("device,token_file\na,t\nb,t\n", "2 rows with token_file"),
    "a kit twice": ("device,kit\na,k\nb,k\n", "2 rows with kit"),
    "neither yes nor no": ("device,wifi_hidden\na,maybe\n", "yes or no"),
    "a quote that never ends": ('device,host\n"a,b\n', "no table"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_with_a_mistake_is_refused_whole(tmp_path, case):
    text, why = REFUSED[case]
    with pytest.raises(OrderError, match=why) as refusal:
        fleet(tmp_path, text)
    assert "secret" not in str(refusal.value)


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "fleet.csv").write_bytes(b"device\n\xff\xfe\n")
    with pytest.raises(OrderError, match="no table"):
        read_fleet(tmp_path / "fleet.csv", COMMON)


def test_what_is_done_is_on_record_and_nothing_secret_with_it(tmp_path):
    log = Log(tmp_path / "fleet.done.csv")
    assert log.devices() == frozenset()
    at = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
    for device in ("press-1", "press-2"):
        log.add([Done(device, device, "/dev/sdb", 100, "ab" * 32, at)])
    assert Log(log.path).devices() == {"press-1", "press-2"}
    lines = log.path.read_text().splitlines()
    assert lines[0] == "device,host,where,bytes,sha256,at"
    assert lines[1] == f"press-1,press-1,/dev/sdb,100,{'ab' * 32},2026-11-29T12:00:00+00:00"
