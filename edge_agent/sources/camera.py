"""Pictures of a camera: V4L2 devices, files and addresses through OpenCV, Raspberry Pi cameras through picamera2.

    camera --grab, grab, grab--> every 1 / fps seconds one is decoded, brought into the task's shape, and delivered

Frames between are grabbed and dropped, so that what is delivered is new and not what a driver had queued. A camera that
fails (unplugged, say) raises, and is opened anew when the source is run again; a file that ends, ends the source. How a
picture becomes a sample is `fd_runtime.images`, as on the workstation. The only home of `cv2` and `picamera2`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_agent.sources.settings import CameraSettings
from edge_agent.sources.source import Captured, Deliver, Names, unix_ms
from fd_protocol.errors import FedistillError
from fd_protocol.manifest import Task
from fd_runtime.config import EX_IOERR
from fd_runtime.extras import MissingExtraError
from fd_runtime.images import sample_of
from fd_runtime.samples import recorded

_PI = "picamera"
_QUEUED_FRAMES = 1


class CameraError(FedistillError):
    """A camera cannot be opened, or gives no more pictures."""

    exit_code = EX_IOERR


class Frames(Protocol):
    """An open camera."""

    def grab(self) -> bool:
        """Wait for the next picture; False: there is none."""
        ...

    def picture(self) -> npt.NDArray[np.uint8]:
        """Return the one that was grabbed: RGB uint8 [height, width, 3].

        Raises:
            CameraError: it is broken.
        """
        ...

    def close(self) -> None: ...


class CameraSource:
    """See the module.

    Args:
        name: of the source.
        settings: of the camera.
        task: what a sample is.
        open_frames: opens it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        settings: CameraSettings,
        task: Task,
        *,
        open_frames: Callable[[CameraSettings], Frames] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._settings, self._task, self._clock = name, settings, task, clock
        self._open, self._names = open_frames or open_camera, Names(name)
        self.dropped = 0
        """Frames that came between."""

    def run(self, deliver: Deliver, stop: threading.Event) -> None:
        """See `Source.run`.

        Raises:
            CameraError: it cannot be opened, or gives no more pictures.
            MissingExtraError: its library is not installed.
            ImageError: the task's samples are no images.
        """
        frames, period_s, due_s = self._open(self._settings), 1 / self._settings.fps, -math.inf
        try:
            while not stop.is_set():
                if not frames.grab():
                    if _is_file(self._settings.device):
                        return
                    raise CameraError(f"{self._settings.device} gives no more pictures")
                now_s = self._clock()
                if now_s < due_s:
                    self.dropped += 1
                    continue
                # In step with the camera on average; what a pause has missed is not made up for.
                due_s = due_s + period_s if now_s - due_s <= period_s else now_s + period_s
                self._pass_on(frames.picture(), deliver)
        finally:
            frames.close()

    def _pass_on(self, picture: npt.NDArray[np.uint8], deliver: Deliver) -> None:
        at_ms = unix_ms()
        sample = recorded(Path(self._settings.device), sample_of(picture, self._task), self._task)
        deliver(Captured(sample, self._names.name(at_ms), at_ms, None, self._name))


def open_camera(settings: CameraSettings) -> Frames:
    """Open the camera that the settings name.

    Raises:
        CameraError: it cannot be opened.
        MissingExtraError: its library is not installed.
    """
    if settings.device.partition(":")[0] == _PI:
        return _PiFrames(settings)
    return _OpenCvFrames(settings)


class _OpenCvFrames:
    def __init__(self, settings: CameraSettings) -> None:
        try:
            import cv2  # noqa: PLC0415 - only devices with a camera need it
        except ImportError as error:
            raise MissingExtraError("cameras", "OpenCV", "agent-camera") from error
        self._cv2, self._device = cv2, settings.device
        is_node = settings.device.startswith("/dev/video")
        self._capture = cv2.VideoCapture(settings.device, cv2.CAP_V4L2 if is_node else cv2.CAP_ANY)
        if not self._capture.isOpened():
            self._capture.release()
            raise CameraError(f"{settings.device} cannot be opened")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, _QUEUED_FRAMES)
        if settings.width:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width)
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height)

    def grab(self) -> bool:
        return bool(self._capture.grab())

    def picture(self) -> npt.NDArray[np.uint8]:
        is_whole, frame = self._capture.retrieve()
        if not is_whole:
            raise CameraError(f"{self._device} gave a broken picture")
        return np.asarray(self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB), np.uint8)

    def close(self) -> None:
        self._capture.release()


class _PiFrames:
    """`BGR888` is picamera2's name for arrays whose last axis is red, green, blue."""

    def __init__(self, settings: CameraSettings) -> None:
        try:
            from picamera2 import Picamera2  # noqa: PLC0415 - only Raspberry Pis have it
        except ImportError as error:
            raise MissingExtraError(
                "Raspberry Pi cameras", "picamera2 (apt install python3-picamera2)", "agent-camera"
            ) from error
        main: dict[str, Any] = {"format": "BGR888"}
        if settings.width:
            main["size"] = (settings.width, settings.height)
        try:
            self._camera = Picamera2(int(settings.device.partition(":")[2] or 0))
            self._camera.configure(self._camera.create_video_configuration(main=main, buffer_count=2))
            self._camera.start()
        except (RuntimeError, IndexError, ValueError) as error:
            raise CameraError(f"{settings.device} cannot be opened: {error}") from error
        self._frame: npt.NDArray[np.uint8] | None = None

    def grab(self) -> bool:
        self._frame = self._camera.capture_array("main")
        return self._frame is not None

    def picture(self) -> npt.NDArray[np.uint8]:
        assert self._frame is not None  # it was grabbed
        return self._frame[..., :3]

    def close(self) -> None:
        self._camera.close()


def _is_file(device: str) -> bool:
    return Path(device).is_file()
