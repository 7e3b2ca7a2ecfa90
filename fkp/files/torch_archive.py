"""Files of torch, read as a stranger's: whatever their bytes are, nothing is executed and little memory is used.

`torch.load(weights_only=True)` alone runs no code either. But it does not compare checksums, unpacks what is packed
however large that gets, and, in older versions, believes a tensor that claims more numbers than the file holds.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from fkp.errors import FkpError

VALUES = 2**21  # bytes of a file that may be other than tensors: unpickled, each can take a hundred
ITEM = {
    f"{kind}Storage": size
    for size, kinds in {
        1: "Byte Char Bool",
        2: "Half BFloat16 Short",
        4: "Float Int",
        8: "Double Long",
    }.items()
    for kind in kinds.split()
}


def read(path: Path) -> Any:
    """The plain values that `torch.save` wrote, and the tensors among them, on the CPU.

    Args:
        path: of a checkpoint, whole as Lightning's or not, or of weights.

    Raises:
        FkpError: the file cannot be read, is damaged, or is more than tensors and plain values.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise FkpError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        start = file.read(2)
        if start != b"PK":
            raise FkpError(f"{path}: {_instead(start, path)}")
        try:
            with zipfile.ZipFile(file) as archive:
                return torch.load(_checked(archive, path), map_location="cpu", weights_only=True)
        except FkpError:
            raise
        except Exception as error:  # bytes that nobody vouches for can raise anything
            reason = (str(error).splitlines() or [""])[0][:200]
            raise FkpError(
                f"{path}: damaged or cut short ({type(error).__name__}: {reason}); fetch it again"
            ) from None


def _instead(start: bytes, path: Path) -> str:
    if start[:1] != b"\x80":
        return "not a file of torch" if start else "empty"
    return (
        "a bare pickle, as torch wrote before 1.6, which is not opened; if you trust it, write it anew: "
        f"torch.save(torch.load({str(path)!r}, weights_only=True), {str(path)!r})"
    )


def _checked(archive: zipfile.ZipFile, path: Path) -> io.BytesIO:
    """The members that matter, in an archive of their own: torch reads what was looked at, and nothing else."""
    members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
    if len(members) < len(archive.infolist()) or "data.pkl" not in members:
        raise FkpError(f"{path}: not a file of torch, though a zip archive")
    if any(
        member.compress_type or member.compress_size != member.file_size
        for member in members.values()
    ):
        raise FkpError(f"{path}: packed, which torch never does; not unpacked")
    if sum(member.file_size for member in members.values()) > path.stat().st_size:
        raise FkpError(f"{path}: claims to hold more than it has bytes; not read")
    if members["data.pkl"].file_size > VALUES:
        raise FkpError(f"{path}: more than {VALUES >> 20} MiB of it are no tensors; not read")
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as kept:
        for name, member in members.items():
            content = archive.read(member)  # all of it, which compares its checksum
            if name == "data.pkl":
                _look_through(
                    content, {name: member.file_size for name, member in members.items()}, path
                )
            if name in ("data.pkl", "byteorder", "version") or name.startswith("data/"):
                kept.writestr(f"archive/{name}", content)
    copy.seek(0)
    return copy


def _look_through(content: bytes, sizes: dict[str, int], path: Path) -> None:
    """Refuse a pickle that is more than plain values and tensors of what the file holds."""
    puts = 0
    for code, place, _ in pickletools.genops(content):
        if "PUT" in code.name:
            # The unpickler makes room for as many places as the highest.
            if int(place or 0) > puts:
                raise FkpError(f"{path}: damaged, or made to exhaust memory; not read")
            puts += 1
    _Values(content, sizes, path).load()


class _Values(pickle.Unpickler):
    """Unpickles with nothing in the place of tensors, and refuses all other objects.

    What it hands out for their classes is immutable or of no use to anyone, as a pickle may set attributes.
    """

    def __init__(self, content: bytes, sizes: dict[str, int], path: Path):
        super().__init__(io.BytesIO(content))
        self.sizes, self.path = sizes, path

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in ITEM:
            return ITEM[name]
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": lambda *_: None,
        }
        if f"{module}.{name}" not in known:
            raise FkpError(
                f"{self.path}: names {f'{module}.{name}'[:80]!r}, which is neither a tensor nor a plain value; nothing "
                "was executed"
            )
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> int:
        _, item, key, _, count = pid
        if (
            type(item) is not int
            or type(count) is not int
            or self.sizes[f"data/{key}"] != item * count
        ):
            raise FkpError(
                f"{self.path}: damaged, a tensor claims more or fewer numbers than it has; not read"
            )
        return count

    def _tensor(self, count: int, offset: int, shape: tuple[int, ...], *_: Any) -> None:
        if not all(type(side) is int for side in shape) or math.prod(shape) > count:
            raise FkpError(
                f"{self.path}: a tensor claims a shape of more numbers than it has; not read"
            )
