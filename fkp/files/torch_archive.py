"""Read files of torch from unknown origin: no code runs, and little memory is used.

`torch.load(weights_only=True)` runs no code either. But it does not compare checksums, unpacks
compressed members however large they get, and, in older versions, believes a tensor that claims
more numbers than the file holds.
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

# Bytes of a file that may be other than tensors: unpickled, each can take a hundred.
VALUES = 2**21
# Bytes of a number in each kind of storage.
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
ZIP, PICKLE = b"PK", b"\x80"


def read(path: Path) -> Any:
    """Read the plain values and tensors that `torch.save` wrote.

    Args:
        path: of a checkpoint, of Lightning or not, or of weights.

    Returns:
        the content, with all tensors on the CPU.

    Raises:
        FkpError: the file cannot be read, is damaged, or holds more than tensors and plain values.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise FkpError(f"{path}: cannot be read ({error.strerror})") from None

    with file:
        start = file.read(2)
        if start != ZIP:
            raise FkpError(f"{path}: {_other_format(start, path)}")
        try:
            with zipfile.ZipFile(file) as archive:
                return torch.load(_checked(archive, path), map_location="cpu", weights_only=True)
        except FkpError:
            raise
        except Exception as error:
            # Bytes of unknown origin can raise anything.
            reason = (str(error).splitlines() or [""])[0][:200]
            raise FkpError(
                f"{path}: damaged or cut short ({type(error).__name__}: {reason}); download or "
                "copy it again"
            ) from None


def _other_format(start: bytes, path: Path) -> str:
    """Say what a file is that is no zip archive."""
    if start[:1] != PICKLE:
        return "not a file of torch" if start else "empty"
    return (
        "a bare pickle, as torch wrote before 1.6, which is not opened; if you trust it, convert "
        f"it: torch.save(torch.load({str(path)!r}, weights_only=True), {str(path)!r})"
    )


def _checked(archive: zipfile.ZipFile, path: Path) -> io.BytesIO:
    """Copy the checked members to an archive in memory, so that torch reads nothing else."""
    members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
    _check_sizes(members, len(archive.infolist()), path)

    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as kept:
        for name, member in members.items():
            # Reading all of a member compares its checksum.
            content = archive.read(member)
            if name == "data.pkl":
                _check_pickle(content, {key: info.file_size for key, info in members.items()}, path)
            if name in ("data.pkl", "byteorder", "version") or name.startswith("data/"):
                kept.writestr(f"archive/{name}", content)
    copy.seek(0)
    return copy


def _check_sizes(members: dict[str, zipfile.ZipInfo], count: int, path: Path) -> None:
    """Refuse an archive of `count` members that would take more memory than the file has bytes."""
    if len(members) < count or "data.pkl" not in members:
        raise FkpError(f"{path}: not a file of torch, though a zip archive")
    if any(info.compress_type or info.compress_size != info.file_size for info in members.values()):
        raise FkpError(f"{path}: compressed, which torch never does; not unpacked")
    if sum(info.file_size for info in members.values()) > path.stat().st_size:
        raise FkpError(f"{path}: claims to hold more than it has bytes; not read")
    if members["data.pkl"].file_size > VALUES:
        raise FkpError(f"{path}: more than {VALUES >> 20} MiB of it are not tensors; not read")


def _check_pickle(content: bytes, sizes: dict[str, int], path: Path) -> None:
    """Refuse a pickle that is more than plain values, and tensors of the size that the file holds.

    Args:
        content: the pickle.
        sizes: bytes of each member of the archive.
        path: for messages.
    """
    puts = 0
    for code, place, _ in pickletools.genops(content):
        if "PUT" in code.name:
            # The unpickler allocates as many places as the highest number.
            if int(place or 0) > puts:
                raise FkpError(f"{path}: damaged, or made to exhaust memory; not read")
            puts += 1
    _PlainUnpickler(content, sizes, path).load()


class _PlainUnpickler(pickle.Unpickler):
    """Unpickle with None in the place of tensors, and refuse all other objects.

    What stands for the classes of tensors is immutable or has no effect, as a pickle may set
    attributes.
    """

    def __init__(self, content: bytes, sizes: dict[str, int], path: Path):
        super().__init__(io.BytesIO(content))
        self.sizes, self.path = sizes, path

    def find_class(self, module: str, name: str) -> Any:
        """Look up a class or function that a pickle names."""
        if module == "torch" and name in ITEM:
            return ITEM[name]
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": lambda *_: None,
        }
        if f"{module}.{name}" not in known:
            raise FkpError(
                f"{self.path}: names {f'{module}.{name}'[:80]!r}, which is neither a tensor nor a "
                "plain value; nothing was executed"
            )
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> int:
        """Check a storage against its member; return how many numbers it has."""
        _, item, key, _, count = pid
        numbers = type(item) is int and type(count) is int
        if not numbers or self.sizes[f"data/{key}"] != item * count:
            raise FkpError(
                f"{self.path}: damaged, a tensor claims more or fewer numbers than it has; not read"
            )
        return count

    def _tensor(self, count: int, offset: int, shape: tuple[int, ...], *_: Any) -> None:
        if not all(type(side) is int for side in shape) or math.prod(shape) > count:
            raise FkpError(
                f"{self.path}: a tensor claims a shape of more numbers than it has; not read"
            )
