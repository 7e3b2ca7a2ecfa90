"""Read JSON and YAML of unknown origin to plain values, within limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from fkp.errors import FkpError, one_line
from fkp.files.reading import read_bytes, text_in

# Bytes of a JSON file of labels: a million faces of 68 points. It takes ten times that in memory.
JSON_BYTES = 1 << 30
YAML_BYTES = 1 << 20


def yaml_in(text: str) -> Any:
    """Load YAML without aliases: a few lines of nested aliases can expand to gigabytes.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is not plain YAML.
    """
    # PyYAML's loader in C, where it was built: ten times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, loader)):
        raise ValueError("a file with settings must not have aliases")
    return yaml.load(text, loader)


def read_json(path: Path, most: int = JSON_BYTES) -> Any:
    """Read a JSON file of at most `most` bytes.

    Raises:
        FkpError: as `fkp.files.reading.read_bytes`, or it is not JSON.
    """
    text = text_in(read_bytes(path, most)).removeprefix("\ufeff")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FkpError(f"{path}: not JSON ({one_line(error)})", file=path) from None


def read_yaml(path: Path, most: int = YAML_BYTES) -> Any:
    """Read a YAML file of at most `most` bytes.

    Raises:
        FkpError: as `fkp.files.reading.read_bytes`, or it is not plain YAML.
    """
    text = text_in(read_bytes(path, most))
    try:
        return yaml_in(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FkpError(f"{path}: not YAML ({one_line(error)})", file=path) from None
