"""[sources.NAME.KIND]: where samples come from; a source has one kind. No array library: the supervisor reads it too.

[sources.door.camera]            [sources.scans.directory]        [sources.press.mqtt]
device = "/dev/video0"           path = "/srv/scans"              topics = ["plant/press/7"]

[sources.radar]                  a source of another distribution: an entry point of the group `fedistill.sources`
plugin = "radar"
options = { port = "/dev/ttyUSB0" }
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edge_agent.local_broker import LocalBrokerSettings
from fd_protocol.identity import require


@dataclass(frozen=True, slots=True)
class DirectorySettings:
    """A folder that is watched for images, `.npy` and `.csv`.

    Attributes:
        path: of the folder, and of folders in it.
        poll_s: between two looks.
        settle_s: a file is read once it has looked the same for so long: whoever writes it has finished.
        labels: `folder`: the name of the first folder below `path` is the class; `none`: images and arrays have none.
        column: of a table, that holds the class.
        done: what becomes of a file that was read: it stays and is remembered, is moved to `done_folder`, or deleted.
        done_folder: outside of `path`.
    """

    path: Path
    poll_s: float = 2.0
    settle_s: float = 2.0
    labels: Literal["none", "folder"] = "none"
    column: str = "y"
    done: Literal["keep", "move", "delete"] = "keep"
    done_folder: Path | None = None

    def __post_init__(self) -> None:
        require(self.poll_s > 0 and self.settle_s >= 0, "poll_s is over 0, settle_s 0 or more")
        require((self.done == "move") == (self.done_folder is not None), 'done_folder is where done = "move" moves to')
        if self.done_folder is not None:
            inside = self.path.absolute() in (self.done_folder.absolute(), *self.done_folder.absolute().parents)
            require(not inside, "done_folder lies outside of path, or its files would come again")


@dataclass(frozen=True, slots=True)
class FieldSettings:
    """One number of a reading.

    Attributes:
        path: where it stands in the message: `temperature`, `AM2301.Temperature`, `ENERGY.Power.1`.
        name: of the task's column, where the task names them; the last part of `path` if left out.
        topic: filter of the messages that hold it; empty = all of the source. With topics all fields make one stream.
        scale, offset: a number is read as number * scale + offset: degrees Fahrenheit, say, as the model knows Celsius.
        words: what words mean, such as { ON = 1, OFF = 0 }; true and false are 1 and 0, "12.5" is a number.
        missing: what becomes of a reading without it: `skip` takes none, `last` takes the last one seen, `nan` says
            that it is missing, `default` takes `default`.
        default: see there.
    """

    path: str
    name: str = ""
    topic: str = ""
    scale: float = 1.0
    offset: float = 0.0
    words: Mapping[str, float] = field(default_factory=dict)
    missing: Literal["skip", "last", "nan", "default"] = "skip"
    default: float = 0.0

    def __post_init__(self) -> None:
        require(bool(self.path), "a field has a path")
        require(self.scale != 0, "a scale of 0 leaves nothing of a number")

    @property
    def column(self) -> str:
        return self.name or self.path.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Readings of sensors in JSON messages of a local broker; a window of them makes a sample, where the task says so.

    Attributes:
        broker: where, by a client of its own.
        topics: filters. Every topic is a stream of its own, unless fields name theirs.
        fields: the numbers of a reading, in the task's order unless it names its columns.
        every_s: a reading is what was last said, every so many seconds; 0 = every message is a reading.
        stale_s: what was said longer ago is missing; 0 = nothing ever is.
        stride: readings from one window to the next; 0 = as many as it has, so that none overlap.
        gap_s: a longer pause between two readings begins the window anew; 0 = one and a half `every_s`, or no bound.
        label: dotted path of the class in a message; empty = none. A window has the one that all its readings agree on.
        id: dotted path of the sample's own id, such as a serial number; empty = made up. A window has the last one.
        retained: take messages that the broker kept from before; who knows how old they are?
    """

    topics: tuple[str, ...]
    fields: tuple[FieldSettings, ...]
    broker: LocalBrokerSettings = LocalBrokerSettings()
    every_s: float = 0.0
    stale_s: float = 0.0
    stride: int = 0
    gap_s: float = 0.0
    label: str = ""
    id: str = ""
    retained: bool = False

    def __post_init__(self) -> None:
        require(bool(self.topics) and all(self.topics), "an MQTT source has topics")
        require(bool(self.fields), "an MQTT source has fields")
        require(min(self.every_s, self.stale_s, self.gap_s, self.stride) >= 0, "seconds and stride are 0 or more")
        columns = [one.column for one in self.fields]
        require(len(set(columns)) == len(columns), "two fields have one name")
        topics = [bool(one.topic) for one in self.fields]
        require(all(topics) or not any(topics), "either all fields name their topic, or none does")


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """Pictures of a camera.

    Attributes:
        device: `/dev/video0`, or any file or address that OpenCV opens; `picamera` or `picamera:1` on a Raspberry Pi.
        fps: most pictures a second; those between are dropped.
        width, height: what the camera is asked for; 0 = its own choice. Pictures are brought into the task's shape.
    """

    device: str = "/dev/video0"
    fps: float = 1.0
    width: int = 0
    height: int = 0

    def __post_init__(self) -> None:
        require(0 < self.fps <= 240, "fps lies over 0, at most 240")
        require(min(self.width, self.height) >= 0, "width and height are 0 or more")
        require((self.width == 0) == (self.height == 0), "width and height come together")
        require(bool(self.device), "a camera has a device")


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """A source: one of the kinds."""

    directory: DirectorySettings | None = None
    mqtt: MqttSettings | None = None
    camera: CameraSettings | None = None
    plugin: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = [self.directory, self.mqtt, self.camera, self.plugin]
        require(sum(kind is not None for kind in kinds) == 1, "a source is one of directory, mqtt, camera, plugin")
        require(self.plugin is not None or not self.options, "options are for a plugin")
