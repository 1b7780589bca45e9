"""The only place that spells a topic.

    fd/v1/{fed}/round                      retained RoundOffer
    fd/v1/{fed}/consensus/{block}          retained ConsensusBlock
    fd/v1/{fed}/release/{family}           retained Release: a nudge
    fd/v1/{fed}/probes                     retained ProbeNotice: a nudge
    fd/v1/{fed}/srv/{aggregator}           retained ServerState, and the aggregator's will
    fd/v1/{fed}/dev/{device}/state         retained DeviceState: birth and will
    fd/v1/{fed}/dev/{device}/up/{shard}    Part
    fd/v1/{fed}/dev/{device}/report        RoundReport
    fd/v1/{fed}/dev/{device}/receipt       Receipt, to the device
    fd/v1/{fed}/dev/{device}/cmd/{name}    retained Command: both sides write it
    fd/v1/{fed}/dev/{device}/prediction    Prediction, opt-in

A device may write its own state, report, prediction, up/{shard} of the shards that there are and cmd/{name} of the
commands that there are, and nothing else: a broker keeps a retained message for every topic that it lets one write, and
must not have room for a stranger's million. No `$share` anywhere: it loses messages and can be hijacked by any
certificate of the fleet.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from fd_protocol.errors import DecodeError, InvalidValueError, shown
from fd_protocol.identity import check_name

ROOT = "fd/v1"
COMMANDS = ("config", "diag", "dry-run", "log-level", "restart-worker")
"""The commands to devices that there are. A device cannot answer one that is not in its broker's access rules."""
MODEL = "model"
"""The command whose states tell a device's way to another bundle; nobody gives it."""
_DEVICE_WRITES = ("state", "report", "prediction")
_DEVICE_READS = ("receipt", "cmd/+")
_FLEET_READS = ("round", "consensus/+", "release/+", "probes", "srv/+")


@dataclass(frozen=True, slots=True)
class Address:
    """What a topic names: `leaf` is the part after the device or the federation, with its argument split off."""

    federation: str
    leaf: str
    device: str = ""
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one federation."""

    federation: str

    def __post_init__(self) -> None:
        check_name(self.federation, "federation")

    @property
    def base(self) -> str:
        return f"{ROOT}/{self.federation}"

    @property
    def round(self) -> str:
        return f"{self.base}/round"

    def consensus(self, block: int) -> str:
        return f"{self.base}/consensus/{block}"

    def release(self, family: str) -> str:
        return f"{self.base}/release/{check_name(family, 'family')}"

    @property
    def probes(self) -> str:
        return f"{self.base}/probes"

    def server(self, aggregator: str) -> str:
        return f"{self.base}/srv/{aggregator}"

    def device(self, device: str, leaf: str) -> str:
        return f"{self.base}/dev/{device}/{leaf}"

    def state(self, device: str) -> str:
        return self.device(device, "state")

    def upload(self, device: str, shards: int = 1) -> str:
        """The shard is a function of the device alone, so that dedupe stays local to an ingest process."""
        return self.device(device, f"up/{zlib.crc32(device.encode()) % shards}")

    def report(self, device: str) -> str:
        return self.device(device, "report")

    def receipt(self, device: str) -> str:
        return self.device(device, "receipt")

    def command(self, device: str, name: str) -> str:
        return self.device(device, f"cmd/{check_name(name, 'command')}")

    def prediction(self, device: str) -> str:
        return self.device(device, "prediction")

    def device_filters(self, device: str) -> tuple[str, ...]:
        """What a device subscribes to."""
        fleet = tuple(f"{self.base}/{leaf}" for leaf in _FLEET_READS)
        return (*fleet, self.receipt(device), self.device(device, "cmd/+"))

    def server_filters(self) -> tuple[str, ...]:
        """What an aggregator subscribes to."""
        return tuple(self.device("+", leaf) for leaf in ("state", "up/+", "report", "cmd/+"))


def parse(topic: str) -> Address:
    """Return what `topic` names.

    Raises:
        DecodeError: `foreign_topic`, the topic is not one of ours.
    """
    levels = topic.split("/")
    try:
        match levels:
            case ["fd", "v1", federation, "dev", device, leaf, *rest] if len(rest) <= 1:
                check_name(device, "device")
                address = Address(federation, leaf, device, "".join(rest))
            case ["fd", "v1", federation, leaf, *rest] if len(rest) <= 1 and leaf != "dev":
                address = Address(federation, leaf, "", "".join(rest))
            case _:
                raise DecodeError("foreign_topic", shown(topic))
        check_name(federation, "federation")
    except InvalidValueError as error:
        raise DecodeError("foreign_topic", shown(topic)) from error
    return address


def acl_lines(federation: str, aggregator: str, *, shards: int = 1) -> list[str]:
    """Return the Mosquitto ACL of a federation; `%u` is the common name of a client's certificate.

    Patterns only: a `topic` line outside a `user` block holds for anonymous clients, and there are none.
    """
    topics = Topics(federation)
    writes = [
        *_DEVICE_WRITES,
        *(f"up/{shard}" for shard in range(shards)),
        *(f"cmd/{name}" for name in (*COMMANDS, MODEL)),
    ]
    lines = [f"pattern read {topics.base}/{leaf}" for leaf in _FLEET_READS]
    lines += [f"pattern read {topics.device('%u', leaf)}" for leaf in _DEVICE_READS]
    lines += [f"pattern write {topics.device('%u', leaf)}" for leaf in writes]
    return [*lines, "", f"user {check_name(aggregator, 'aggregator')}", f"topic readwrite {topics.base}/#"]


def subscription_lines(federation: str, aggregator: str) -> list[str]:
    """Return what the broker's guard (`deploy/mosquitto/guard`) is told: `owner` and `filter`s, `%u` as in the ACL."""
    return [
        f"owner {check_name(aggregator, 'aggregator')}",
        *(f"filter {one}" for one in Topics(federation).device_filters("%u")),
    ]
