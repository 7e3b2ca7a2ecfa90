"""Test the download against a local server: resumed, checked, complete or nothing."""

import hashlib
import http.server
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fkp.data.youtube_faces import YoutubeFaces
from fkp.errors import FkpError
from fkp.files import download, transfer
from fkp.files.download import fetch_archive, fetch_file

CSV = b",0,1\na.png,1,2\n"
SUMS = {"training_frames_keypoints.csv": hashlib.sha256(CSV).hexdigest()}


def archive(packing: int = zipfile.ZIP_STORED, **extra: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", packing) as file:
        file.writestr("P1-6e55/data/training_frames_keypoints.csv", CSV)
        file.writestr("P1-6e55/README.md", b"not needed")
        for i in range(20):
            file.writestr(f"P1-6e55/data/training/{i}.png", os.urandom(20_000))
        for name, content in extra.items():
            file.writestr(name, content)
    return data.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serve one file, and record the requests.

    Each entry of `lose` breaks one connection off after so many bytes.
    """

    body = archive()
    ranges = True
    lose: list[int]
    # First byte requested, and bytes sent.
    requests: list[tuple[int, int]]
    pause_s = 0.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lose, self.requests = [], []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/archive.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if not self.path.endswith("archive.zip"):
            return self.send_error(404)
        body, start = self.server.body, 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and self.server.ranges:
            start = int(wanted[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
        self.end_headers()
        end = min(len(body), start + self.server.lose.pop(0)) if self.server.lose else len(body)
        self.server.requests.append((start, end - start))
        try:
            for i in range(start, end, 10_000):
                self.wfile.write(body[i : min(i + 10_000, end)])
                time.sleep(self.server.pause_s)
        except OSError:
            pass
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture()
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transfer, "BACKOFF_S", 0.01)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def fetch(server: Server, into: Path, **changes: object) -> Path:
    return fetch_archive(server.url, into, folder="data", checksums=SUMS, timeout=5, **changes)  # type: ignore[arg-type]


def is_complete(into: Path) -> bool:
    """Return whether the set is complete and nothing else lies beside it."""
    beside = [path.name for path in into.parent.iterdir()]
    return (
        len(list((into / "training").iterdir())) == 20
        and beside == [into.name]
        and not (into / "README.md").exists()
    )


def test_a_complete_set_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    into = fetch(server, tmp_path / "faces")
    assert is_complete(into)
    fetch(server, into)
    assert len(server.requests) == 1


def test_a_lost_connection_continues_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.lose = [100_000, 50_000, 70_000]
    assert is_complete(fetch(server, tmp_path / "faces"))
    assert [start for start, _ in server.requests] == [0, 100_000, 150_000, 220_000]
    assert sum(sent for _, sent in server.requests) == len(server.body)


def test_a_later_call_continues(server: Server, tmp_path: Path) -> None:
    server.lose = [100_000, 0, 0]
    with pytest.raises(FkpError, match="continues from"):
        fetch(server, tmp_path / "faces", tries=2)
    assert not (tmp_path / "faces").exists()
    assert is_complete(fetch(server, tmp_path / "faces"))
    assert server.requests[-1][0] == 100_000


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.lose = False, [100_000]
    assert is_complete(fetch(server, tmp_path / "faces"))
    assert [start for start, _ in server.requests] == [0, 0]


def test_a_changed_archive_is_not_mixed_with_the_old_one(server: Server, tmp_path: Path) -> None:
    server.lose = [100_000, 0]
    with pytest.raises(FkpError):
        fetch(server, tmp_path / "faces", tries=1)
    server.body = archive()
    server.lose = []
    assert is_complete(fetch(server, tmp_path / "faces"))


def test_a_killed_process_leaves_no_half_set_and_the_next_continues(
    server: Server, tmp_path: Path
) -> None:
    server.pause_s = 0.05
    code = (
        "from pathlib import Path; from fkp.files.download import fetch_archive\n"
        f"fetch_archive({server.url!r}, Path({str(tmp_path / 'faces')!r}), "
        f"folder='data', checksums={SUMS!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    part = tmp_path / "faces.zip.part"
    while not (part.exists() and part.stat().st_size > 50_000):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "faces").exists()
    server.pause_s = 0.0
    assert is_complete(fetch(server, tmp_path / "faces"))
    assert server.requests[-1][0] > 50_000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"not a zip", "damaged"),
        (archive()[:-3000], "damaged"),
        (archive(**{"P1-6e55/data/../../evil.txt": b"x"}), "would leave the folder"),
        (
            archive(zipfile.ZIP_DEFLATED, **{"P1-6e55/data/bomb": b"\0" * 60_000_000}),
            "as a zip bomb does",
        ),
        (archive(**{"P1-6e55/data/test_frames.csv": b""}).replace(CSV, CSV[::-1]), "damaged"),
        (
            archive(**{"P1-6e55/data/é.csv": b""}).replace("é.csv".encode(), b"\xff\xff.csv", 1),
            "damaged",
        ),
    ],
)
def test_an_unsound_archive_leaves_nothing(
    server: Server, tmp_path: Path, body: bytes, message: str
) -> None:
    server.body = body
    (tmp_path / "in").mkdir()
    with pytest.raises(FkpError, match=message):
        fetch(server, tmp_path / "in" / "faces")
    assert not list((tmp_path / "in").iterdir()) and not (tmp_path / "evil.txt").exists()


def test_an_unsound_archive_is_deleted_before_another_process_may_fetch(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, locked = tmp_path / "faces.zip.part", download._locked

    @contextmanager
    def then_another(path: Path) -> Iterator[None]:
        try:
            with locked(path):
                yield
        finally:
            part.write_bytes(b"another's")

    monkeypatch.setattr(download, "_locked", then_another)
    server.body = b"not a zip"
    with pytest.raises(FkpError, match="damaged"):
        fetch(server, tmp_path / "faces")
    assert part.read_bytes() == b"another's"


def test_a_second_caller_logs_that_it_waits_and_downloads_nothing(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fkp")
    with download._locked(tmp_path / "faces.zip.lock"):
        second = threading.Thread(target=fetch, args=(server, tmp_path / "faces"))
        second.start()
        while "waiting for it" not in caplog.text:
            assert second.is_alive()
            time.sleep(0.01)
        assert not server.requests
    second.join()
    assert is_complete(tmp_path / "faces")


def test_a_wrong_checksum_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FkpError, match="SHA-256"):
        fetch_archive(
            server.url, tmp_path / "faces", folder="data", checksums={next(iter(SUMS)): "0" * 64}
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_content_is_left_unchanged(server: Server, tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "mine.txt").write_text("mine")
    with pytest.raises(FkpError, match="in the way"):
        fetch(server, tmp_path / "faces")
    assert (tmp_path / "faces" / "mine.txt").read_text() == "mine" and not server.requests


def test_a_missing_archive_names_the_way_by_hand(server: Server, tmp_path: Path) -> None:
    url = server.url.replace("archive.zip", "gone.zip")
    with pytest.raises(FkpError, match=r"HTTP 404(.|\n)*data\.root="):
        fetch_archive(url, tmp_path / "faces", folder="data", checksums=SUMS)


def test_the_source_downloads_on_request(server: Server, tmp_path: Path) -> None:
    source = YoutubeFaces(str(tmp_path / "faces"), download=True, url=server.url)
    # This archive is not the publisher's.
    with pytest.raises(FkpError, match="is missing|SHA-256"):
        source.read()
    assert len(server.requests) == 1 and not (tmp_path / "faces").exists()


def test_one_file_is_downloaded_checked_and_continued(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "models/one.bin"
    right = {"sha256": hashlib.sha256(server.body).hexdigest(), "by_hand": "Or take another."}
    with pytest.raises(FkpError, match=r"not the file expected(.|\n)*Or take another"):
        fetch_file(server.url, file, sha256="0" * 64, by_hand="Or take another.")
    assert not list(file.parent.glob("one*"))
    server.lose = [50_000]
    assert fetch_file(server.url, file, **right).read_bytes() == server.body
    assert [path.name for path in file.parent.iterdir()] == ["one.bin"] and server.requests[-1][
        0
    ] > 0
    count = len(server.requests)
    fetch_file(server.url, file, **right)
    assert len(server.requests) == count
    file.write_bytes(b"another")
    assert fetch_file(server.url, file, **right).read_bytes() == server.body


def test_a_file_over_the_limit_is_deleted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "LIMIT", 100_000)
    with pytest.raises(FkpError, match=r"MiB(.|\n)*Or take another"):
        fetch_file(server.url, tmp_path / "a.bin", sha256="0" * 64, by_hand="Or take another.")
    with pytest.raises(FkpError, match=r"MiB(.|\n)*data\.root="):
        fetch(server, tmp_path / "faces")
    assert not list(tmp_path.iterdir())
