"""Read damaged and hostile files of every kind that fkp reads, and count how reading ends.

    python benchmarks/reliability/fuzz.py --inputs 100000

Reading must end with a result or with one clean error (`FkpError`). Another exception, a crash,
more than 10 seconds or more than 256 MB is a bug: it is counted, and its input is kept.

Every reader has small good files, which are mutated. The reader's name and a number determine an
input. A child process reads the inputs; if it dies, a new one continues with the next input. The
limits of time and memory need Linux.
"""

import argparse
import hashlib
import io
import itertools
import json
import math
import os
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
from functools import partial
from pathlib import Path
from random import Random
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
from fkp.data.formats.coco import Coco
from fkp.data.formats.deeplabcut import DeepLabCut
from fkp.data.formats.label_studio import LabelStudio
from fkp.data.formats.labelme import Labelme
from fkp.data.formats.sleap import Sleap
from fkp.data.formats.yolo import Yolo
from fkp.data.labelled_csv import LabelledCsv, write_csv
from fkp.data.pts_folders import PtsFolders, write_pts
from fkp.data.table import FaceTable, Source
from fkp.doctor.images import read_facts
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files import download, images
from fkp.files.images import read_image, write_image
from fkp.files.matlab import array, cell, cells, open_hdf5, read_mat
from fkp.inference import engines
from fkp.inference.media import find
from fkp.inference.video import Video
from fkp.inference.writers import PredictionWriter
from fkp.markup import IBUG68, load_markup
from fkp.recipe import current_names

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from sets import last_line  # noqa: E402

# The limits of one input: bytes beyond what the good files take, and seconds.
MEMORY, SECONDS = 1 << 28, 10

# The most pixels of an image during the test, far less than MEMORY.
PIXELS = 1 << 22

# Additional bytes at which the operating system refuses memory to the child process.
HARD_MEMORY = 1 << 32

# Bytes of a PNG file before its first chunk, and the largest mutated file.
PNG_SIGNATURE, LARGEST = 8, 1 << 20

# Pillow's name of each image format, and the file name extension.
IMAGES = {
    "jpeg": "jpg",
    "png": "png",
    "gif": "gif",
    "bmp": "bmp",
    "webp": "webp",
    "tiff": "tif",
    "ppm": "ppm",
    "jpeg2000": "jp2",
    "avif": "avif",
}

# The file name extension of each video container, and OpenCV's name of the codec.
VIDEOS = {
    "mp4": "mp4v",
    "avi": "MJPG",
    "mkv": "mp4v",
    "webm": "VP80",
    "flv": "FLV1",
    "ts": "mp2v",
    "wmv": "WMV2",
}

# Byte strings and numbers that often break parsers.
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
    """Make small good files of every kind, by the name of their reader."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, points = painter.paint(0, 0)
        image = cv2.resize(image, (64, 48))

        made = _image_files(image)
        _write_cache(folder, image, points)
        _write_weights(folder)
        return {
            **made,
            "doctor": [data for files in made.values() for data in files],
            **_label_files(folder, points),
            **{
                name: [(SAMPLES / file).read_bytes() for file in files]
                for name, (_, files) in FORMATS.items()
            },
            "yolo": [(SAMPLES / "yolo/labels/0000002.txt").read_bytes()],
            **_matlab_files(folder, points),
            "film": _video_files(folder, image),
            "archive": [_archive_file(folder)],
            "index": [file.read_bytes() for file in folder.glob("canvases-*/index")],
            "contents": [file.read_bytes() for file in folder.glob("contents-*")],
            "checkpoint": [(folder / "a.ckpt").read_bytes()],
            "onnx": [(folder / "a.onnx").read_bytes()],
        }


def _image_files(image: np.ndarray) -> dict[str, list[bytes]]:
    """Encode an image in every format, with an EXIF orientation."""
    exif = Image.Exif()
    exif[274] = 6

    files = {}
    for kind in IMAGES:
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind, exif=exif)
        files[kind] = [file.getvalue()]
    return files


def _video_files(folder: Path, image: np.ndarray) -> list[bytes]:
    """Encode a video of three frames in every container."""
    files = []
    for extension, codec in VIDEOS.items():
        file = folder / f"film.{extension}"
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), 25.0, (64, 48))
        for shift in range(3):
            writer.write(np.roll(image, shift, 1))
        writer.release()
        files.append(file.read_bytes())
    return files


def _label_files(folder: Path, points: np.ndarray) -> dict[str, list[bytes]]:
    """Write labels, markups, predictions and lists of images."""
    write_pts(folder / "a.pts", points)
    write_csv(folder / "a.csv", ["a.png"] * 3, np.stack([points] * 3))
    header = ["image", "identity", *(f"{name}_{axis}" for name in IBUG68.points for axis in "xy")]
    named = [header, ["a.png", "somebody", *map(str, points.ravel())]]

    markups = Path(fkp.markup.__file__).with_name("markups")
    face = Face(points, np.ones(68), np.ones(4), 1.0)
    prediction = {"image": "a.png", "ckpt": None, "faces": [face.as_dict()]}
    return {
        "csv": [
            (folder / "a.csv").read_bytes(),
            "\n".join(map(",".join, named)).encode(),
            _spreadsheet(points),
        ],
        "pts": [(folder / "a.pts").read_bytes()],
        "markup": [(markups / f"{name}.yaml").read_bytes() for name in ("face5", "ibug68")],
        "prediction": [json.dumps(prediction).encode()],
        "list": [b"a.png\n# mine\n../b.jpg\n"],
    }


def _matlab_files(folder: Path, points: np.ndarray) -> dict[str, list[bytes]]:
    """Write labels as MATLAB does: of version 5, and of version 7.3 with an image in a cell."""
    import h5py
    from scipy.io import savemat

    for name in ("plain", "packed"):
        arrays = {"pt3d_68": points.T, "other": np.array([[1, "a"]], object)}
        savemat(folder / f"{name}.mat", arrays, do_compression=name == "packed")
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
        image = file.create_dataset("#refs#/a", data=np.zeros((3, 5, 4), np.uint8))
        file.create_dataset("IsT", data=np.array([[image.ref]], h5py.ref_dtype))
        file["phisT"] = points.reshape(-1, 1)
    files = [folder / f"{name}.mat" for name in ("plain", "packed")]
    return {
        "mat": [file.read_bytes() for file in files],
        "hdf5": [(folder / "a.mat").read_bytes()],
    }


def _spreadsheet(points: np.ndarray) -> bytes:
    """Make a UTF-16 table with an index column, decimal commas and Windows paths, no header."""
    cells = [str(value).replace(".", ",") for value in points.ravel()]
    return "\r\n".join(
        ";".join([str(i), rf"C:\me\{'Aa'[i]}.PNG", *cells, ""]) for i in range(2)
    ).encode("utf-16")


def _archive_file(folder: Path) -> bytes:
    """Make a ZIP archive of two files."""
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/data/a.txt", "a" * 50)
        archive.writestr("top/data/b/c.bin", bytes(range(256)))
    return (folder / "a.zip").read_bytes()


def _write_cache(folder: Path, image: np.ndarray, points: np.ndarray) -> None:
    """Write an image cache of one face."""
    os.environ["FKP_CACHE"] = str(folder)
    write_image(folder / "a.png", image)
    table = FaceTable([folder / "a.png"], points[None], ["a"], ["a"])
    image_cache.decode(table, IBUG68, True, 3.0)


def _write_weights(folder: Path) -> None:
    """Write the smallest network as a checkpoint and as an exported model."""
    from fkp.inference.export import export
    from fkp.networks import HeatMaps
    from fkp.weights import shipped

    recipe = current_names(torch.load(shipped(), weights_only=True)["fkp"])
    recipe["network"] = {"_target_": "fkp.networks.HeatMaps", "width": 4}
    recipe["codec"] = {"_target_": "fkp.codecs.SoftArgmax", "size": 64, "unit": 0.64}
    recipe["transforms"]["rescale"]["size"] = recipe["transforms"]["random_crop"]["size"] = 64

    weights = HeatMaps(68, width=4).state_dict()
    state = {f"network.{name}": weight for name, weight in weights.items()}
    torch.save({"fkp": recipe, "state_dict": state}, folder / "a.ckpt")
    export(folder / "a.ckpt", folder / "a.onnx", np.zeros((2, 64, 64), np.uint8))


def _survey(source: Source, file: Path) -> object:
    """Read the labels of a source."""
    source.root = file.parent
    return source.survey()


def _survey_format(kind: Callable[..., Source], file: Path) -> object:
    """Read the labels of a file in a format of its own, which a new source must see."""
    return kind(str(file.parent), file=file.name).survey()


def _yolo(file: Path) -> object:
    """Read a file of YOLO labels, beside an image."""
    write_image(file.with_suffix(".png"), np.zeros((8, 8), np.uint8))
    settings = file.with_name("data.yaml")
    settings.write_text("train: .\nkpt_shape: [6, 3]\n")
    return Yolo(str(file.parent), file=settings.name).contents()


def _video(file: Path) -> object:
    """Read the rate and at most 100 frames of a video."""
    video = Video(file)
    return video.constant_rate(), list(itertools.islice(video, 100))


def _archive(file: Path) -> None:
    """Unpack an archive, with the errors that `fetch_archive` reports."""
    digests = {"a.txt": hashlib.sha256(b"a" * 50).hexdigest()}
    try:
        with tempfile.TemporaryDirectory() as folder:
            download._unpack(file, Path(folder, "out"), "data", digests)
    except (download._Unsound, OSError) as error:
        raise FkpError(str(error)) from error


def _contents(file: Path) -> bytes:
    """Read the file in which the image cache keeps the digests of images."""
    os.environ["FKP_CACHE"] = str(file.parent)
    paths = Texts.of([file.with_name("a.png")], Path)
    image_digests.digests(paths)

    (known,) = file.parent.glob("contents-*.bin")
    os.replace(file, known)
    return image_digests.digests(paths)


def _prediction(file: Path) -> object:
    """Read a prediction as a resumed `predict.py` does."""
    return PredictionWriter(PREDICTOR, file.parent, {}).images.read(Path("a.png"), Path("a"))


def _hdf5(file: Path) -> object:
    """Read the points and the images of a MATLAB file of version 7.3."""
    with open_hdf5(file) as opened:
        images_of = [cell(opened, one, "IsT") for one in cells(opened, "IsT")]
        return array(opened, "phisT"), images_of


CSV, PTS = LabelledCsv(".", "in.csv", images="."), PtsFolders(".")
PREDICTOR: Any = SimpleNamespace(markup=IBUG68, detector=None)

# Files that the tools themselves wrote, by the reader's name.
SAMPLES = Path(__file__).parents[2] / "tests/data/formats/samples"
FORMATS: dict[str, tuple[Callable[..., Source], list[str]]] = {
    "coco": (Coco, ["coco_datumaro.json", "coco_labelstudio.json"]),
    "labelstudio": (LabelStudio, ["labelstudio.json", "labelstudio_min.json"]),
    "labelme": (Labelme, ["labelme/ann_1.json", "labelme/bob_1.json"]),
    "deeplabcut": (DeepLabCut, ["deeplabcut/CollectedData_ann.csv"]),
    "deeplabcut_h5": (DeepLabCut, ["deeplabcut/CollectedData_ann.h5"]),
    "sleap": (Sleap, ["sleap.slp", "sleap.pkg.slp"]),
}

# By the reader's name: the name of the file, and the function that reads it.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{kind: (f"in.{extension}", read_image) for kind, extension in IMAGES.items()},
    "doctor": ("in.png", read_facts),
    "csv": ("in.csv", lambda file: _survey(CSV, file)),
    "pts": ("a.pts", lambda file: _survey(PTS, file)),
    **{
        name: (f"in{Path(files[0]).suffix}", partial(_survey_format, kind))
        for name, (kind, files) in FORMATS.items()
    },
    "yolo": ("in.txt", _yolo),
    "mat": ("in.mat", lambda file: read_mat(file, ["pt3d_68"])),
    "hdf5": ("in.mat", _hdf5),
    "markup": ("in.yaml", lambda file: load_markup(str(file))),
    "prediction": ("a.json", _prediction),
    "list": ("in.txt", lambda file: find(str(file))),
    "film": ("in.mp4", _video),
    "archive": ("in.zip", _archive),
    "index": ("index", lambda file: image_cache._read_index(file.parent)),
    "contents": ("in.bin", _contents),
    "checkpoint": ("in.ckpt", lambda file: engines.load(file, "cpu")),
    "onnx": ("in.onnx", lambda file: engines.load(file)),
}


def mutated(good: list[bytes], name: str) -> bytes:
    """Damage a copy of one of some good files; the same name gives the same bytes."""
    random = Random(name)
    data = bytearray(random.choice(good))
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        _edit(data, good, random)

    short = data[:LARGEST]
    if data[:4] == b"\x89PNG" and random.random() < 0.7:
        return _with_checksums(short)
    return bytes(short)


def _edit(data: bytearray, good: list[bytes], random: Random) -> None:
    """Insert, overwrite, repeat, splice or cut bytes at a random place, often in the header."""
    start = random.randrange(min(len(data), random.choice((64, 512, 1 << 30))) + 1)
    end = start + random.choice((1, 2, 4, 8, 64, random.randrange(len(data) + 1)))

    # What may be written there.
    word = random.choice(WORDS)
    flipped = bytes(byte ^ 1 << random.randrange(8) for byte in data[start : start + 1])
    value = random.choice(NUMBERS) & 0xFFFFFFFF >> random.choice((0, 16))
    number = value.to_bytes(4, "little")[:: random.choice((1, -1))]
    repeated = data[start:end][:4000] * random.choice((1, 1, 300))
    spliced = random.choice(good)[start:end]
    noise = random.randbytes(4)

    edits = [
        (start, word),
        (start + len(word), word),
        (start, repeated),
        (end, spliced),
        (end, noise),
        (end, b""),
        (1 << 30, b""),
        (start + 1, flipped),
        (start + len(number), number),
    ]
    until, new = random.choice(edits)
    data[start:until] = new


def _with_checksums(png: bytearray) -> bytes:
    """Correct the checksums of a PNG file, so that its reader does not stop at the first one."""
    start = PNG_SIGNATURE
    while start + 12 <= len(png):
        end = start + 8 + int.from_bytes(png[start : start + 4])
        png[end : end + 4] = zlib.crc32(png[start + 4 : end]).to_bytes(4)
        start = end + 4
    return bytes(png)


def outcome(reader: str, folder: Path, data: bytes) -> str:
    """Read data; return `result`, `error` (a clean one), or else the traceback of a bug."""
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
    """Read the inputs of these numbers in child processes, and count how reading ended.

    Args:
        reader: a name in `READERS`.
        good: its good files.
        numbers: the numbers of the inputs.
        until: when to stop, by `time.monotonic`.
        keep: the folder for the inputs that found a bug.
    """
    ends: Counter[str] = Counter()
    while ends.total() < len(numbers) and time.monotonic() < until:
        before = ends.total()
        with tempfile.TemporaryDirectory() as folder:
            receive, send = os.pipe()
            if (child := os.fork()) == 0:
                try:
                    _read(reader, good, numbers[ends.total() :], until, Path(folder), send)
                finally:
                    os._exit(1)

            # Count what the child process reports until it ends.
            os.close(send)
            with open(receive, encoding="utf-8") as lines:
                for line in lines:
                    ends[_kept(reader, good, numbers[ends.total()], json.loads(line), keep)] += 1
            _, status = os.waitpid(child, 0)

        # A death is a bug of the first input alone; otherwise a new process tries the input again.
        if status and ends.total() == before:
            end = f"died: {os.waitstatus_to_exitcode(status)}"
            ends[_kept(reader, good, numbers[ends.total()], end, keep)] += 1
    return ends


def _read(
    reader: str, good: list[bytes], numbers: range, until: float, folder: Path, send: int
) -> None:
    """Read inputs within the limits, and send how each ended; then end the process."""
    most = _limit_process(reader, good, folder)
    with open(send, "w", encoding="utf-8") as results:
        for number in itertools.takewhile(lambda _: time.monotonic() < until, numbers):
            # Processor time, so that other work on the machine does not count; real time as a
            # larger limit.
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)
            end = outcome(reader, folder, mutated(good, f"{reader} {number}"))

            # Earlier inputs may have taken the memory: let a new process try this one again.
            large = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > most
            if large and number != numbers[0]:
                break
            end = f"more than {MEMORY >> 20} MB" if large else end
            print(json.dumps(end), file=results, flush=True)
    os._exit(0)


def _limit_process(reader: str, good: list[bytes], folder: Path) -> int:
    """Set the limits of this process; return the largest memory allowed, in KiB."""
    # OpenCV, FFmpeg and onnxruntime print a message for every damaged file.
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    images.PIXELS = PIXELS

    # Load the libraries before memory is measured.
    write_image(folder / "a.png", np.zeros((8, 8), np.uint8))
    for data in good:
        outcome(reader, folder, data)

    # Limit memory, and let the alarms end the process wherever it is.
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + HARD_MEMORY, taken + HARD_MEMORY))
    for alarm in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(alarm, signal.SIG_DFL)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + MEMORY // 1024


def _kept(reader: str, good: list[bytes], number: int, end: str, keep: Path) -> str:
    """Return `result`, `error` or `bug`; keep the input and the traceback of a bug."""
    if end in ("result", "error"):
        return end
    keep.mkdir(parents=True, exist_ok=True)
    (keep / f"{reader}-{number}").write_bytes(mutated(good, f"{reader} {number}"))
    (keep / f"{reader}-{number}.txt").write_text(end)
    return "bug"


def _options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--inputs", type=int, default=100_000, help="number of inputs of all readers together")
    add("--seed", type=int, default=0)
    add("--seconds", type=float, default=math.inf, help="time after which no input is started")
    add("--readers", nargs="*", default=list(READERS), choices=list(READERS))
    add(
        "--keep",
        type=Path,
        default=Path("outputs/fuzz"),
        help="folder for the inputs that found a bug",
    )
    return parser.parse_args()


def main() -> None:
    """Fuzz each reader in turn and print a table."""
    options = _options()
    cv2.setNumThreads(1)

    # A forked process would wait for threads that only its parent has.
    torch.set_num_threads(1)

    good, began, total = seeds(), time.monotonic(), Counter[str]()
    print(f"{'reader':12}{'inputs':>8}{'results':>9}{'errors':>8}{'bugs':>6}{'seconds':>9}")
    for i, reader in enumerate(options.readers):
        # Divide the time that is left equally; monotonic time is the same in child processes.
        start, left = time.monotonic(), len(options.readers) - i
        until = start + (options.seconds - (start - began)) / left

        first, count = options.seed * 1_000_000_000, options.inputs // len(options.readers)
        ends = fuzz(reader, good[reader], range(first, first + count), until, options.keep)
        counts = f"{ends.total():8}{ends['result']:9}{ends['error']:8}{ends['bug']:6}"
        print(f"{reader:12}{counts}{time.monotonic() - start:9.1f}", flush=True)
        total += ends

    metrics = {
        "inputs": total.total(),
        "results": total["result"],
        "errors": total["error"],
        "bugs": total["bug"],
    }
    print(last_line(metrics | {"fuzz_s": time.monotonic() - began}))


if __name__ == "__main__":
    main()
