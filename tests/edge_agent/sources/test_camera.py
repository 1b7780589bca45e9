"""Pictures of a real file through OpenCV, and of cameras that a test holds in its hand."""

from __future__ import annotations

import sys
import threading
import types

import numpy as np
import pytest

from edge_agent.sources.camera import CameraError, CameraSource, open_camera
from edge_agent.sources.settings import CameraSettings
from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Preprocessing, Task
from fd_runtime.extras import MissingExtraError
from fd_runtime.images import ImageError, sample_of

COLOUR = Task(("a", "b"), (3, 8, 12), "uint8")
GREY = Task(("a", "b"), (1, 8, 8), "uint8", Preprocessing(1 / 255, fit="crop"))
FRAMES = 30
RGB = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """An AVI of 30 pictures [48, 72], one colour each: red, green, blue, red, ..."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    path = tmp_path_factory.mktemp("video") / "colours.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (72, 48))
    assert writer.isOpened()
    for number in range(FRAMES):
        writer.write(np.full((48, 72, 3), RGB[number % 3][::-1], np.uint8))
    writer.release()
    return path


class Clock:
    """Each look at it is one frame later."""

    def __init__(self, frames_per_s):
        self.step_s, self.now_s = 1 / frames_per_s, 0.0

    def __call__(self):
        self.now_s += self.step_s
        return self.now_s


def run(source, stop=None, most=10_000):
    captured, stop = [], stop or threading.Event()

    def deliver(one):
        captured.append(one)
        if len(captured) >= most:
            stop.set()

    source.run(deliver, stop)
    return captured


def test_a_video_file_is_a_camera_that_ends(video):
    source = CameraSource("door", CameraSettings(str(video), fps=200), COLOUR, clock=Clock(100))
    captured = run(source)
    assert (len(captured), source.dropped) == (FRAMES, 0)
    for number, one in enumerate(captured):
        assert (one.sample.shape, one.sample.dtype, one.source, one.label) == ((3, 8, 12), np.uint8, "door", None)
        np.testing.assert_allclose(one.sample.mean(axis=(1, 2)), RGB[number % 3], atol=12)
    assert len({one.sample_id for one in captured}) == FRAMES
    assert captured[0].sample_id.startswith(f"door/{captured[0].at_ms}-")


def test_frames_between_are_dropped(video):
    source = CameraSource("door", CameraSettings(str(video), fps=10), COLOUR, clock=Clock(30))
    assert (len(run(source)), source.dropped) == (10, 20)


def test_pictures_are_brought_into_the_tasks_shape_as_everywhere(video):
    source = CameraSource("door", CameraSettings(str(video)), GREY, clock=Clock(30))
    (one, *_) = run(source)
    assert one.sample.shape == (1, 8, 8)


def test_what_is_no_camera_is_told(tmp_path):
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    for device in ("/dev/video97", str(tmp_path / "absent.avi")):
        with pytest.raises(CameraError, match="cannot be opened"):
            run(CameraSource("door", CameraSettings(device), COLOUR))


@pytest.mark.parametrize(
    ("device", "module", "text"),
    [
        ("/dev/video0", "cv2", r"cameras need OpenCV: .*agent-camera"),
        ("picamera", "picamera2", "apt install python3-picamera2"),
    ],
)
def test_without_its_library_it_says_what_to_install(monkeypatch, device, module, text):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=text):
        open_camera(CameraSettings(device))


class Held:
    """A camera in a test's hand: it gives as many pictures as it is told to."""

    def __init__(self, pictures):
        self.pictures, self.is_closed = list(pictures), False

    def grab(self):
        return bool(self.pictures)

    def picture(self):
        return self.pictures.pop(0)

    def close(self):
        self.is_closed = True


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (48, 72, 3), dtype=np.uint8)


def held(pictures, task=COLOUR, fps=100.0, clock=None):
    camera = Held(pictures)
    options = {"open_frames": lambda _: camera, "clock": clock or Clock(50)}
    return CameraSource("door", CameraSettings("/dev/video0", fps), task, **options), camera


def test_a_camera_that_is_unplugged_is_told_and_closed():
    source, camera = held([picture(), picture()])
    captured = []
    with pytest.raises(CameraError, match="/dev/video0 gives no more pictures"):
        source.run(captured.append, threading.Event())
    assert (len(captured), camera.is_closed) == (2, True)


def test_it_stops_when_it_is_told_to():
    source, camera = held([picture()] * 100)
    assert len(run(source, most=3)) == 3
    assert camera.is_closed


def test_what_a_pause_has_missed_is_not_made_up_for():
    times = iter([0.0, 0.1, 1.0, 1.05, 30.0, 30.1, 30.2, 31.0])
    source, _ = held([picture()] * 20, fps=1.0, clock=lambda: next(times, None))
    captured = []
    with pytest.raises(TypeError):  # time ends there
        source.run(captured.append, threading.Event())
    assert (len(captured), source.dropped) == (4, 4)  # at 0, 1, 30 and 31 s


def test_a_task_without_images_is_no_task_for_a_camera():
    source, camera = held([picture()], task=Task(("a", "b"), (12,), "uint8"))
    with pytest.raises(ImageError, match=r"no sample of shape \[12\]"):
        run(source)
    assert camera.is_closed


def test_samples_may_be_floats():
    source, _ = held([picture()], task=Task(("a", "b"), (3, 8, 12), "float32"))
    (one,) = run(source, most=1)
    assert one.sample.dtype == np.float32
    np.testing.assert_array_equal(one.sample, sample_of(picture(), COLOUR))


def test_a_camera_of_a_raspberry_pi_gives_red_green_blue(monkeypatch):
    """picamera2 itself runs on a Pi alone; its manual says that BGR888 arrays hold [R, G, B] (appendix A)."""
    calls = []

    class Picamera2:
        def __init__(self, number):
            calls.append(("open", number))

        def create_video_configuration(self, **options):
            return options

        def configure(self, options):
            calls.append(("configure", options["main"]))

        def start(self):
            calls.append(("start",))

        def capture_array(self, name):
            return picture()

        def close(self):
            calls.append(("close",))

    monkeypatch.setitem(sys.modules, "picamera2", types.SimpleNamespace(Picamera2=Picamera2))
    source = CameraSource("door", CameraSettings("picamera:1", 100, width=640, height=480), COLOUR, clock=Clock(50))
    captured = run(source, most=2)
    np.testing.assert_array_equal(captured[0].sample, sample_of(picture(), COLOUR))
    main = {"format": "BGR888", "size": (640, 480)}
    assert calls == [("open", 1), ("configure", main), ("start",), ("close",)]


@pytest.mark.parametrize(
    "settings", [{"fps": 0.0}, {"fps": 1000.0}, {"width": 5}, {"width": -1, "height": -1}, {"device": ""}]
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(InvalidValueError):
        CameraSettings(**settings)
