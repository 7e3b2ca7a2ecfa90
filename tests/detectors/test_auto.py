"""The default detector: fetches YuNet at most once, and falls back to the cascade."""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fkp.detectors import Auto, HaarCascade, YuNet, auto, describe, yunet
from fkp.errors import FkpError
from fkp.files.images import read_image
from fkp.geometry import overlap, turned_back

CONTENT = b"the model" * 100


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a process that has not asked for the model yet."""
    monkeypatch.setenv("FKP_CACHE", str(tmp_path))
    forget(monkeypatch)
    return tmp_path / "models"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as a new process does."""
    monkeypatch.setattr(auto, "_TRIED", {})
    monkeypatch.setattr(auto, "_WARNED", set())


@pytest.fixture
def server(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("FKP_OFFLINE")
    monkeypatch.setattr(yunet, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_address[1]}/yunet.onnx"
        monkeypatch.setattr(yunet, "URL", address)
        yield running
        running.shutdown()


def test_the_model_is_fetched_once(server: Server, fresh: Path) -> None:
    assert isinstance(Auto().chosen, YuNet) and isinstance(Auto().chosen, YuNet)
    assert server.requests == 1
    assert [file.name for file in fresh.iterdir()] == ["yunet.onnx"]


def test_a_failed_try_is_not_repeated_for_hours(
    server: Server,
    fresh: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(yunet, "SHA256", "0" * 64)
    with caplog.at_level(logging.WARNING, "fkp"):
        for _ in range(3):
            assert isinstance(Auto().chosen, HaarCascade)
    assert server.requests == 1 and len(caplog.records) == 1

    # Another process does not ask either, but one in seven hours does.
    forget(monkeypatch)
    assert isinstance(Auto().chosen, HaarCascade) and server.requests == 1
    (mark,) = fresh.glob("*.failed")
    os.utime(mark, 2 * (time.time() - 7 * 3600,))
    monkeypatch.setattr(yunet, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    forget(monkeypatch)
    assert isinstance(Auto().chosen, YuNet) and server.requests == 2 and not mark.exists()


def test_offline_the_network_is_not_asked(
    server: Server, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FKP_OFFLINE", "1")
    assert isinstance(Auto().chosen, HaarCascade)
    assert server.requests == 0 and not list(fresh.parent.rglob("*.failed"))


def test_an_unreachable_server_takes_no_time(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FKP_OFFLINE")
    monkeypatch.setattr(yunet, "URL", "http://127.0.0.1:9/none.onnx")
    start = time.monotonic()
    assert isinstance(Auto().chosen, HaarCascade) and time.monotonic() - start < 5


def test_the_fall_back_finds_what_the_cascade_finds(fresh: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 160), dtype=np.uint8)
    for ours, theirs in zip(Auto()(image), HaarCascade()(image), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert describe(Auto()) == {"name": "HaarCascade", "version": HaarCascade.version}


@pytest.mark.parametrize("smallest", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("detector", [Auto, HaarCascade, YuNet])
def test_a_smallest_face_of_no_size_is_refused(detector: type, smallest: float) -> None:
    with pytest.raises(FkpError) as error:
        detector(smallest=smallest)
    assert error.value.key == "detector.smallest"


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_boxes_in_a_turned_image_are_turned_back(quarters: int) -> None:
    image = np.zeros((40, 60), np.uint8)
    image[10:18, 33:41] = 1
    rows, columns = np.nonzero(np.rot90(image, quarters))
    box = [columns.min(), rows.min(), columns.max(), rows.max()]
    np.testing.assert_array_equal(turned_back([box], quarters, image.shape), [[33, 10, 40, 17]])


@pytest.fixture
def with_yunet(shared: Path, fresh: Path) -> Path:
    fresh.mkdir()
    model = shared / "models/face_detection_yunet_2023mar.onnx"
    (fresh / model.name).write_bytes(model.read_bytes())
    return shared


@pytest.mark.real
def test_a_cached_model_is_used_and_faces_of_any_rotation_found(with_yunet: Path) -> None:
    detector = Auto()
    photo = read_image(with_yunet / "photos/mona_lisa.jpg")
    (upright,), _ = detector(photo)
    for quarters in (1, 2, 3):
        boxes, scores = detector(np.rot90(photo, quarters))
        assert len(boxes) == 1 and boxes.dtype == scores.dtype == np.float32
        back = turned_back(boxes, quarters, photo.shape)
        assert overlap(back[0], upright) > 0.6
    assert describe(detector) == {"name": "YuNet", "version": "2023mar"}


@pytest.mark.real
def test_a_predictor_uses_auto_by_default(with_yunet: Path) -> None:
    from fkp import Predictor

    predictor = Predictor.load()
    assert len(predictor(with_yunet / "photos/obamas.jpg")) == 2
    assert isinstance(predictor.detector, Auto) and isinstance(predictor.detector.chosen, YuNet)
