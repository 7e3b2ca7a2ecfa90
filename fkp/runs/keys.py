"""The keys of a configuration: those that nothing reads, and what was meant instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fkp import ranges
from fkp.runs import signatures
from fkp.runs.overrides import is_path

NUMBERS: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float)}
OPTIONAL = ("callbacks", "logger")  # groups that a script does without
REFERENCE = re.compile(r"\$\{[^}]*\}")


def faults(cfg: DictConfig, root: DictConfig) -> Iterator[str]:
    """What is wrong with the keys that no constructor's signature tells of.

    Args:
        cfg: the composed configuration.
        root: its root file, with its `defaults`.

    Yields:
        a line for each key at the root that nothing reads, for each of another type than the default, and for each part
        of a group of parts, such as `callbacks`, that cannot be built.
    """
    groups = groups_of(root)
    values, defaults = _values(cfg), _values(root)
    read = " ".join(REFERENCE.findall(OmegaConf.to_yaml(cfg, resolve=False)))
    own = [key for key in values if key in groups or key in defaults]
    known = OmegaConf.masked_copy(cfg, own)
    for group, option in groups.items():
        if option and group not in values and group not in OPTIONAL:
            yield f"{group}: has no option; give {group}=…"

    for key, value in values.items():
        if key in own:
            yield from _type_faults(key, value, defaults.get(key))
            yield from _part_faults(key, value)
        elif not re.search(rf"\b{re.escape(key)}\b", read):
            yield f"{key}: no such key{suggestion(key, known, groups)}"


def _values(node: DictConfig) -> dict[str, Any]:
    """Plain values, with interpolations as they are written."""
    container = OmegaConf.to_container(node, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def groups_of(root: DictConfig) -> dict[str, str | None]:
    """The groups that the defaults of a root file name, each with its option; None for none."""
    named = [entry for entry in _values(root).get("defaults", []) if isinstance(entry, dict)]
    return {
        group: option for entry in named for group, option in entry.items() if "hydra/" not in group
    }


def _type_faults(key: str, value: Any, default: Any) -> Iterator[str]:
    if value is None or value == "" or "${" in str(value):
        # null turns off what has a word for its default, such as drawn=png; a number cannot be turned off.
        empty = value == "" and (default is not None or is_path(key))
        if default != value and (empty or (value is None and type(default) in NUMBERS)):
            yield f"{key}: has no value; give {key}=…"
        return
    wanted = NUMBERS.get(type(default), (int,) if default is None and key in ranges.LIMITS else ())
    if isinstance(value, (list, dict)) and (
        is_path(key) or not isinstance(default, (list, dict, type(None)))
    ):
        yield f"{key}: {value!r:.100} is not one value"
    elif not wanted or is_path(key):  # resume=false, but also the folder of a run
        return
    elif not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        yield f"{key}: {value!r} is not {wanted[-1].__name__}"
    elif reason := ranges.fault(key, value):
        yield f"{key}: {reason}"


def _part_faults(group: str, parts: Any) -> Iterator[str]:
    if not isinstance(parts, dict) or "_target_" in parts:
        return
    good = [name for name, part in parts.items() if isinstance(part, dict) and "_target_" in part]
    for name, part in parts.items():
        if good and part is not None and name not in good and "${" not in str(part):
            close = difflib.get_close_matches(str(name), good, n=1, cutoff=0.6)
            yield f"{group}.{name}: has no _target_" + (
                f"; did you mean {group}.{close[0]}?" if close else ""
            )


def suggestion(key: str, cfg: DictConfig, groups: Collection[str] = ()) -> str:
    """What to write instead of a key that a configuration lacks: itself with a +, if the constructor takes it; else one
    that is alike as a whole, or in its last part."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, parent, throw_on_missing=False) if parent else None
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    signature = signatures.of(target) if target else None
    if signature is not None and last in signature.parameters:
        return f", but {target} takes it: write +{key}=…"
    known = [other for other in (*_keys("", cfg), *groups) if other != key]
    whole = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    alike = [other for other in known if other.rpartition(".")[2] == last]
    loose = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    best = [*whole, *alike, *loose]
    return f"; did you mean {best[0]}?" if best else "; --help shows them all"


def _keys(prefix: str, node: Any) -> Iterator[str]:
    if isinstance(node, DictConfig):
        for key in map(str, node):
            full = f"{prefix}.{key}" if prefix else key
            yield full
            if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
                yield from _keys(full, node[key])
