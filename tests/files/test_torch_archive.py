"""Test that damaged and malicious files of torch are refused with a reason, and run no code."""

import io
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fkp.errors import FkpError
from fkp.files.torch_archive import read

TENSORS = {
    "a": torch.arange(300.0),
    "b": torch.full((7, 3), 2, dtype=torch.int64),
    "half": torch.ones(5).half(),
}
CONTENT = {
    "fkp": {"version": 1, "names": ["left", "right"]},
    "state_dict": OrderedDict(TENSORS),
    "epoch": 3,
    "lr": 0.1,
}


class MakeFolder:
    """Make a folder when unpickled: code that a malicious file would run."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, int]]:
        return os.mkdir, (str(self.file), 0o777)


def saved(content: Any = CONTENT) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def remade(change: Callable[[str, bytes], bytes], packed: int = zipfile.ZIP_STORED) -> bytes:
    """Return the file with changed members and correct checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved())) as old, zipfile.ZipFile(file, "w", packed) as new:
        for name in old.namelist():
            new.writestr(name, change(name.partition("/")[2], old.read(name)))
    return file.getvalue()


def with_pickle(content: bytes) -> bytes:
    return remade(lambda name, old: content if name == "data.pkl" else old)


def pickled(change: Callable[[bytes], bytes]) -> bytes:
    def of_values(name: str, old: bytes) -> bytes:
        if name != "data.pkl":
            return old
        assert change(old) != old
        return change(old)

    return remade(of_values)


def overlapping() -> bytes:
    """Return an archive with a thousand names for the same megabyte."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        new.writestr("x/data.pkl", pickle.dumps({}, 2))
        new.writestr("x/data/0", bytes(2**20))
        first = new.infolist()[1]
        for i in range(1, 1000):
            other = zipfile.ZipInfo(f"x/data/{i}")
            for field in ("file_size", "compress_size", "CRC", "header_offset", "external_attr"):
                setattr(other, field, getattr(first, field))
            new.filelist.append(other)
            new.NameToInfo[other.filename] = other
    return file.getvalue()


def bare(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


# Content of a file, and the reason why it is refused.
# Opcodes of pickle: `}` a dict, `0` drops it, `J` an integer, `.` the end.
HOSTILE = {
    "empty": (b"", "empty"),
    "text": (b"hello", "not a file of torch"),
    "cut": (saved()[:-30], r"damaged or cut short \(BadZipFile"),
    "begun": (saved()[:90], r"damaged or cut short \(BadZipFile"),
    "old": (bare(CONTENT), r"a bare pickle.* convert it: torch\.save\(torch\.load"),
    "other zip": (
        remade(lambda name, old: old).replace(b"data.pkl", b"word.xml"),
        "not a file of torch, though a zip",
    ),
    "names code": (
        with_pickle(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00truetR."),
        r"names 'os\.system', .* nothing was ex",
    ),
    "names code in protocol 4": (
        with_pickle(b"\x80\x04\x8c\x02os\x8c\x06system\x93."),
        r"names 'os\.system'",
    ),
    "allocates": (
        with_pickle(b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R."),
        r"names 'builtins\.byt",
    ),
    "claims bytes": (with_pickle(b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00."), "damaged"),
    "claims places": (
        with_pickle(b"\x80\x02}r\xff\xff\xff\x7f."),
        "damaged, or made to exhaust memory",
    ),
    "many values": (
        with_pickle(b"\x80\x02" + b"}0" * 2**21 + b"}."),
        "more than 2 MiB of it are not tensors",
    ),
    "zip bomb": (
        remade(lambda _, old: old + bytes(2**27), zipfile.ZIP_DEFLATED),
        "compressed, which torch never does",
    ),
    "overlapping": (overlapping(), "claims to hold more than it has bytes"),
    "tensor beyond": (
        pickled(lambda p: p.replace(b"M\x2c\x01", b"J\x00\x00\x00\x10")),
        "damaged, a tensor claims more or fewer",
    ),
    "shape beyond": (
        saved({"a": torch.as_strided(torch.ones(1), (2**20, 2**20), (0, 0))}),
        "a tensor claims a shape of more numbers",
    ),
    "member missing": (remade(lambda name, old: old).replace(b"data/1", b"data/7"), "damaged"),
    "object": (saved({"path": Path("x")}), "names 'pathlib.*Path'"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.ckpt"


def same(content: Any, other: Any) -> bool:
    tensors = content["state_dict"]
    return (
        all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in tensors.items())
        and tensors.keys() == other["state_dict"].keys()
        and all(content[name] == other[name] for name in ("fkp", "epoch", "lr"))
        and content.keys() == other.keys()
    )


def test_files_of_torch_are_read(file: Path) -> None:
    file.write_bytes(saved())
    assert same(CONTENT, read(file))
    torch.save(
        {"weight": torch.nn.Parameter(torch.ones(3)), "empty": torch.zeros(0, 4), "none": None},
        file,
    )
    torch.testing.assert_close(read(file)["weight"], torch.nn.Parameter(torch.ones(3)))

    # Deeply nested lists.
    file.write_bytes(with_pickle(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."))
    assert len(read(file)) == 1


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_malicious_file_is_refused_with_a_reason(file: Path, kind: str) -> None:
    content, reason = HOSTILE[kind]
    file.write_bytes(content)
    with pytest.raises(FkpError, match=rf"some\.ckpt: {reason}"):
        read(file)


def test_no_code_runs(file: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    for content in (
        saved({"fkp": MakeFolder(made)}),
        with_pickle(pickle.dumps(MakeFolder(made))),
        bare({"fkp": MakeFolder(made)}),
    ):
        file.write_bytes(content)
        with pytest.raises(FkpError, match="nothing was executed|not opened"):
            read(file)
        assert not made.exists()
    pickle.loads(pickle.dumps(MakeFolder(made)))
    assert made.exists()


def test_refusing_takes_little_memory(tmp_path: Path) -> None:
    for kind, (content, _) in HOSTILE.items():
        (tmp_path / f"{kind}.ckpt").write_bytes(content)
    code = f"""
import resource, pathlib
from fkp.files.torch_archive import read
from fkp.errors import FkpError
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = used()
for file in pathlib.Path({str(tmp_path)!r}).glob("*.ckpt"):
    try:
        read(file)
    except FkpError:
        pass
print((used() - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200, f"{done.stdout} MiB"


WHOLE = saved()
PLACE = WHOLE.index(TENSORS["a"].numpy().tobytes())


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 8 * TENSORS["a"].nbytes - 1))
def test_a_flipped_bit_of_a_tensor_is_detected(
    tmp_path_factory: pytest.TempPathFactory, bit: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "flipped.ckpt"
    file.write_bytes(flipped(WHOLE, 8 * PLACE + bit))
    with pytest.raises(FkpError, match="Bad CRC-32"):
        read(file)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 8 * len(WHOLE) - 1))
def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, bit: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "flipped.ckpt"
    file.write_bytes(flipped(WHOLE, bit))
    try:
        assert same(CONTENT, read(file))
    except FkpError as error:
        assert str(file) in str(error)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_pickle_of_random_bytes_is_refused_or_read(file: Path) -> None:
    """Checksums are correct, as in a file made to do harm."""
    rng, old = random.Random(0), zipfile.ZipFile(io.BytesIO(WHOLE)).read("archive/data.pkl")
    for _ in range(300):
        values = bytearray(old)
        for _ in range(rng.randint(1, 4)):
            values[rng.randrange(len(values))] = rng.randrange(256)
        file.write_bytes(with_pickle(bytes(values)))
        try:
            read(file)
        except FkpError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
