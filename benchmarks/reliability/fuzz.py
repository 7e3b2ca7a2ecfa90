"""Read damaged and hostile files of every kind that fkp reads. Whatever they hold, what comes of them is a result or
one clean error (`FkpError`). Anything else is a bug, and so is a crash, or a file that takes 10 seconds or 256 MB:
they are counted and kept.

    python benchmarks/reliability/fuzz.py --inputs 100000

Every reader has small good files, which are mutated: a number, a seed and its name tell an input. A process of its own
reads them, and another goes on where it died. Linux alone has its limits.
"""

import argparse
import hashlib
import io
import itertools
import json
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

import fkp.markup
from fkp import painter
from fkp.data import image_cache, image_digests
from fkp.data.columns import Texts
from fkp.data.labelled_csv import LabelledCsv, write_csv
from fkp.data.pts_folders import PtsFolders, write_pts
from fkp.data.table import FaceTable, Source
from fkp.doctor.images import read_facts
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files import download, images
from fkp.files.images import read_image, write_image
from fkp.inference import engines
from fkp.inference.media import find
from fkp.inference.video import Video
from fkp.inference.writers import PredictionWriter
from fkp.markup import IBUG68, load_markup

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share
from sets import last_line  # noqa: E402

MEMORY, SECONDS = 1 << 28, 10  # bytes more than good files take, and time, for one input
PIXELS = 1 << 22  # that a picture may have meanwhile, far less than MEMORY
LAST = 1 << 32  # bytes more, at which the process that reads is stopped
PICTURES = {
    "jpeg": "jpg",
    "png": "png",
    "gif": "gif",
    "bmp": "bmp",
    "webp": "webp",
    "tiff": "tif",
    "ppm": "ppm",
}
PICTURES |= {"jpeg2000": "jp2", "avif": "avif"}
FILMS = {
    "mp4": "mp4v",
    "avi": "MJPG",
    "mkv": "mp4v",
    "webm": "VP80",
    "flv": "FLV1",
    "ts": "mp2v",
    "wmv": "WMV2",
}
WORDS = rb"../ / - 1e999 nan , ' [ { &a *a %s null II* !!int".split()
WORDS += [
    b'"',
    b"\n",
    b"\r",
    b": ",
    b"\0",
    b"\xff" * 4,
    b"\xc2\xb2",
    b"\xff\xd8\xff\xe1",
    b"\x89PNG",
    b"\x1b[2J",
]
WORDS += [b"9" * 500, b"[" * 2000]
NUMBERS = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    30_000,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
]


def seeds() -> dict[str, list[bytes]]:
    """Small good files of every kind, by the name of their reader."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, points = painter.paint(0, 0)
        image = cv2.resize(image, (64, 48))
        made, exif = {}, Image.Exif()
        exif[274] = 6
        for kind in PICTURES:
            file = io.BytesIO()
            Image.fromarray(image).save(file, kind, exif=exif)
            made[kind] = [file.getvalue()]
        for ending, codec in FILMS.items():
            writer = cv2.VideoWriter(
                str(folder / f"film.{ending}"), cv2.VideoWriter.fourcc(*codec), 25.0, (64, 48)
            )
            for shift in range(3):
                writer.write(np.roll(image, shift, 1))
            writer.release()
        write_pts(folder / "a.pts", points)
        write_csv(folder / "a.csv", ["a.png"] * 3, np.stack([points] * 3))
        named = [
            ["image", "identity", *(f"{point}_{axis}" for point in IBUG68.points for axis in "xy")]
        ]
        named += [["a.png", "somebody", *map(str, points.ravel())]]
        face = Face(points, np.ones(68), np.ones(4), 1.0)
        with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("top/data/a.txt", "a" * 50)
            archive.writestr("top/data/b/c.bin", bytes(range(256)))
        os.environ["FKP_CACHE"] = name
        write_image(folder / "a.png", image)
        image_cache.decode(
            FaceTable([folder / "a.png"], points[None], ["a"], ["a"]), IBUG68, True, 3.0
        )
        _weights(folder)
        markups = Path(fkp.markup.__file__).with_name("markups")
        return made | {
            "doctor": [data for some in made.values() for data in some],
            "csv": [
                (folder / "a.csv").read_bytes(),
                "\n".join(map(",".join, named)).encode(),
                _spreadsheet(points),
            ],
            "pts": [(folder / "a.pts").read_bytes()],
            "markup": [
                (markups / "face5.yaml").read_bytes(),
                (markups / "ibug68.yaml").read_bytes(),
            ],
            "prediction": [
                json.dumps({"image": "a.png", "ckpt": None, "faces": [face.as_dict()]}).encode()
            ],
            "list": [b"a.png\n# mine\n../b.jpg\n"],
            "film": [(folder / f"film.{ending}").read_bytes() for ending in FILMS],
            "archive": [(folder / "a.zip").read_bytes()],
            "index": [file.read_bytes() for file in folder.glob("canvases-*/index")],
            "contents": [file.read_bytes() for file in folder.glob("contents-*")],
            "checkpoint": [(folder / "a.ckpt").read_bytes()],
            "onnx": [(folder / "a.onnx").read_bytes()],
        }


def _spreadsheet(points: np.ndarray) -> bytes:
    """A table without a header, with an index column, decimal commas and another machine's path, in UTF-16."""
    cells = [str(value).replace(".", ",") for value in points.ravel()]
    return "\r\n".join(
        ";".join([str(i), rf"C:\me\{'Aa'[i]}.PNG", *cells, ""]) for i in range(2)
    ).encode("utf-16")


def _weights(folder: Path) -> None:
    """The smallest network, as a checkpoint and exported."""
    from fkp.inference.export import export
    from fkp.networks import HeatMaps
    from fkp.weights import shipped

    recipe = torch.load(shipped(), weights_only=True)["fkp"]
    recipe["network"] = {"_target_": "fkp.networks.HeatMaps", "width": 4}
    recipe["codec"] = {"_target_": "fkp.codecs.SoftArgmax", "size": 64, "unit": 0.64}
    recipe["transforms"]["rescale"]["size"] = recipe["transforms"]["random_crop"]["size"] = 64
    state = {
        f"network.{name}": weight for name, weight in HeatMaps(68, width=4).state_dict().items()
    }
    torch.save({"fkp": recipe, "state_dict": state}, folder / "a.ckpt")
    export(folder / "a.ckpt", folder / "a.onnx", np.zeros((2, 64, 64), np.uint8))


def _survey(source: Source, file: Path) -> object:
    source.root = file.parent
    return source.survey()


def _film(file: Path) -> object:
    film = Video(file)
    return film.constant_rate(), list(itertools.islice(film, 100))


def _archive(file: Path) -> None:
    try:
        with tempfile.TemporaryDirectory() as folder:
            download._unpack(
                file, Path(folder, "out"), "data", {"a.txt": hashlib.sha256(b"a" * 50).hexdigest()}
            )
    except (download._Unsound, OSError) as error:  # as fetch_archive says it
        raise FkpError(str(error)) from error


def _contents(file: Path) -> bytes:
    os.environ["FKP_CACHE"] = str(file.parent)
    paths = Texts.of([file.with_name("a.png")], Path)
    image_digests.digests(paths)
    (known,) = file.parent.glob("contents-*.bin")
    os.replace(file, known)
    return image_digests.digests(paths)


CSV, PTS = LabelledCsv(".", "in.csv", images="."), PtsFolders(".")
PREDICTOR: Any = SimpleNamespace(markup=IBUG68)
# The name of the file, and what reads it.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{kind: (f"in.{ending}", read_image) for kind, ending in PICTURES.items()},
    "doctor": ("in.png", read_facts),
    "csv": ("in.csv", lambda file: _survey(CSV, file)),
    "pts": ("a.pts", lambda file: _survey(PTS, file)),
    "markup": ("in.yaml", lambda file: load_markup(str(file))),
    "prediction": (
        "a.json",
        lambda file: PredictionWriter(PREDICTOR, file.parent, {}).images.read_faces(
            Path("a.png"), Path("a")
        ),
    ),
    "list": ("in.txt", lambda file: find(str(file))),
    "film": ("in.mp4", _film),
    "archive": ("in.zip", _archive),
    "index": ("index", lambda file: image_cache._read_index(file.parent)),
    "contents": ("in.bin", _contents),
    "checkpoint": ("in.ckpt", lambda file: engines.load(file, "cpu")),
    "onnx": ("in.onnx", lambda file: engines.load(file)),
}


def mutated(good: list[bytes], name: str) -> bytes:
    """A damaged copy of one of some good files, the same for the same name."""
    chance = random.Random(name)
    data = bytearray(chance.choice(good))
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        at = chance.randrange(
            min(len(data), chance.choice((64, 512, 1 << 30))) + 1
        )  # headers are where it hurts
        end = at + chance.choice((1, 2, 4, 8, 64, chance.randrange(len(data) + 1)))
        word, flipped = (
            chance.choice(WORDS),
            bytes(byte ^ 1 << chance.randrange(8) for byte in data[at : at + 1]),
        )
        number = (chance.choice(NUMBERS) & 0xFFFFFFFF >> chance.choice((0, 16))).to_bytes(
            4, "little"
        )
        number = number[:: chance.choice((1, -1))]
        again, other, noise = (
            data[at:end][:4000] * chance.choice((1, 1, 300)),
            chance.choice(good)[at:end],
            chance.randbytes(4),
        )
        edits = [
            (at, word),
            (at + len(word), word),
            (at, again),
            (end, other),
            (end, noise),
            (end, b""),
            (1 << 30, b""),
        ]
        until, new = chance.choice([*edits, (at + 1, flipped), (at + len(number), number)])
        data[at:until] = new
    return (
        _summed(data[: 1 << 20])
        if data[:4] == b"\x89PNG" and chance.random() < 0.7
        else bytes(data[: 1 << 20])
    )


def _summed(png: bytearray) -> bytes:
    """With right check sums, or nobody reads on."""
    at = 8
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4])
        png[end : end + 4] = zlib.crc32(png[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(png)


def outcome(reader: str, folder: Path, data: bytes) -> str:
    """`result`, `error` (a clean one), or else the traceback of a bug."""
    name, read = READERS[reader]
    (folder / name).write_bytes(data)
    try:
        read(folder / name)
    except FkpError as error:
        return "error" if "no memory" not in str(error) else traceback.format_exc()
    except BaseException:
        return traceback.format_exc()
    return "result"


def fuzz(reader: str, good: list[bytes], numbers: range, until: float, keep: Path) -> Counter[str]:
    """Let a process read the inputs of these numbers, and another go on where it dies; how they ended."""
    ends: Counter[str] = Counter()
    while ends.total() < len(numbers) and time.monotonic() < until:
        before = ends.total()
        with tempfile.TemporaryDirectory() as folder:
            answer, tell = os.pipe()
            if (child := os.fork()) == 0:
                try:
                    _read(reader, good, numbers[ends.total() :], until, Path(folder), tell)
                finally:
                    os._exit(1)
            os.close(tell)
            with open(answer, encoding="utf-8") as lines:
                for line in lines:
                    ends[_kept(reader, good, numbers[ends.total()], json.loads(line), keep)] += 1
            _, status = os.waitpid(child, 0)
        if status and ends.total() == before:  # of this input, and not of all those before
            ends[
                _kept(
                    reader,
                    good,
                    numbers[ends.total()],
                    f"died: {os.waitstatus_to_exitcode(status)}",
                    keep,
                )
            ] += 1
    return ends


def _read(
    reader: str, good: list[bytes], numbers: range, until: float, folder: Path, tell: int
) -> None:
    """The process that reads."""
    for told in (1, 2):  # by OpenCV, FFmpeg and onnxruntime, of every file
        os.dup2(os.open(os.devnull, os.O_WRONLY), told)
    images.PIXELS = PIXELS
    write_image(folder / "a.png", np.zeros((8, 8), np.uint8))
    for data in good:
        outcome(reader, folder, data)  # what has to be loaded once is loaded
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + LAST, taken + LAST))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + MEMORY // 1024
    for alarm in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(alarm, signal.SIG_DFL)  # which ends it, wherever it is
    with open(tell, "w", encoding="utf-8") as answers:
        for number in itertools.takewhile(lambda _: time.monotonic() < until, numbers):
            signal.setitimer(
                signal.ITIMER_PROF, SECONDS
            )  # of its own; other work on the machine is not its fault
            signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)
            end = outcome(reader, folder, mutated(good, f"{reader} {number}"))
            large = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > most
            if large and number != numbers[0]:
                break  # perhaps not by this one alone: another process will see
            print(
                json.dumps(f"more than {MEMORY >> 20} MB" if large else end),
                file=answers,
                flush=True,
            )
    os._exit(0)


def _kept(reader: str, good: list[bytes], number: int, end: str, keep: Path) -> str:
    """How it ended, in a word; a bug's input and traceback are kept."""
    if end in ("result", "error"):
        return end
    keep.mkdir(parents=True, exist_ok=True)
    (keep / f"{reader}-{number}").write_bytes(mutated(good, f"{reader} {number}"))
    (keep / f"{reader}-{number}.txt").write_text(end)
    return "bug"


def main() -> None:
    """Print a table, reader by reader."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="after which no input is begun"
    )
    parser.add_argument("--readers", nargs="*", default=list(READERS), choices=list(READERS))
    parser.add_argument(
        "--keep", type=Path, default=Path("outputs/fuzz"), help="where inputs that found a bug go"
    )
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)  # or what is forked would wait for threads that it has not
    good, began, total = seeds(), time.monotonic(), Counter[str]()
    print(f"{'reader':12}{'inputs':>8}{'results':>9}{'errors':>8}{'bugs':>6}{'seconds':>9}")
    for i, reader in enumerate(asked.readers):
        start, left = time.monotonic(), len(asked.readers) - i
        until = (
            start + (asked.seconds - (start - began)) / left
        )  # monotonic time is the child's too
        first, count = asked.seed * 1_000_000_000, asked.inputs // len(asked.readers)
        ends = fuzz(reader, good[reader], range(first, first + count), until, asked.keep)
        counts = [ends.total(), ends["result"], ends["error"], ends["bug"]]
        print(
            "{:12}{:8}{:9}{:8}{:6}{:9.1f}".format(reader, *counts, time.monotonic() - start),
            flush=True,
        )
        total += ends
    figures = {
        "inputs": total.total(),
        "results": total["result"],
        "errors": total["error"],
        "bugs": total["bug"],
    }
    print(last_line(figures | {"fuzz_s": time.monotonic() - began}))


if __name__ == "__main__":
    main()
