"""Free the shapes of an ONNX file that was exported for images of one size.

YuNet's file says that its input has 640 x 640 pixels, and keeps the shape of each tensor between.
Nothing in its network depends on that. onnxruntime takes other sizes only if the file does not say
so, and needs no package that can write ONNX files for that: shapes are plain fields.
"""

from __future__ import annotations

from collections.abc import Iterator

from fkp.errors import FkpError

# Numbers of fields in onnx.proto.
GRAPH, INPUT, OUTPUT, SHAPES, NAME = 7, 11, 12, 13, 1

# Kinds of fields in the wire format of protocol buffers, and the sizes of those that are fixed.
VARINT, BYTES, FIXED = 0, 2, {1: 8, 5: 4}

# The field `type` of a tensor of float32 of any shape, and of one of shape (1, 3, h, w).
ANY_SHAPE = bytes.fromhex("12040a020801")
IMAGES = bytes.fromhex("12180a16080112120a0208010a0208030a031201680a03120177")


def with_free_shapes(model: bytes) -> bytes:
    """Return an ONNX model of one input whose images may have any height and width.

    Raises:
        FkpError: these bytes are no such model.
    """
    return b"".join(
        _field(GRAPH, _freed(content)) if number == GRAPH else whole
        for number, content, whole in _fields(model)
    )


def _freed(graph: bytes) -> bytes:
    """Return a graph without the shapes of its tensors, but for those of its weights."""
    parts = []
    for number, content, whole in _fields(graph):
        if number in (INPUT, OUTPUT):
            names = [field for kind, _, field in _fields(content) if kind == NAME]
            kind = IMAGES if number == INPUT else ANY_SHAPE
            parts.append(_field(number, b"".join(names) + kind))
        elif number != SHAPES:
            parts.append(whole)
    return b"".join(parts)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the number of each field of a message, its content, and all its bytes.

    Raises:
        FkpError: the bytes are not a message.
    """
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        if key & 7 == VARINT:
            begin, (_, at) = at, _varint(message, at)
        elif key & 7 == BYTES:
            length, begin = _varint(message, at)
            at = begin + length
        elif key & 7 in FIXED:
            begin, at = at, at + FIXED[key & 7]
        else:
            raise FkpError("not an ONNX file")
        if at > len(message):
            raise FkpError("not an ONNX file, or it is truncated")
        yield key >> 3, message[begin:at], message[start:at]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Read a number at a place; return it and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise FkpError("not an ONNX file, or it is truncated")


def _field(number: int, content: bytes) -> bytes:
    """Write a field of bytes."""
    return _as_varint(number << 3 | BYTES) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])
