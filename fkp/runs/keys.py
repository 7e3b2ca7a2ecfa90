"""Find keys of a configuration that nothing reads, and suggest what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fkp import ranges
from fkp.runs import signatures
from fkp.runs.overrides import is_path

# The types that a value may have, by the type of its default.
NUMBERS: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float)}
# Groups that a script can do without.
OPTIONAL = ("callbacks", "logger")
REFERENCE = re.compile(r"\$\{[^}]*\}")


def faults(cfg: DictConfig, root: DictConfig) -> Iterator[str]:
    """Check the keys that no constructor's signature describes.

    Args:
        cfg: the composed configuration.
        root: its root file, with its `defaults`.

    Yields:
        a line for each group without an option; for each key at the root that nothing reads, or
        whose value has another type than the default; and for each entry of a group such as
        `callbacks` that cannot be built.
    """
    groups = groups_of(root)
    values, defaults = _values(cfg), _values(root)
    for group, option in groups.items():
        if option and group not in values and group not in OPTIONAL:
            yield f"{group}: has no option; give {group}=…"

    # A key of the user's own is fine if an interpolation reads it.
    read = " ".join(REFERENCE.findall(OmegaConf.to_yaml(cfg, resolve=False)))
    own = [key for key in values if key in groups or key in defaults]
    known = OmegaConf.masked_copy(cfg, own)
    for key, value in values.items():
        if key in own:
            yield from _type_faults(key, value, defaults.get(key))
            yield from _entry_faults(key, value)
        elif not re.search(rf"\b{re.escape(key)}\b", read):
            yield f"{key}: no such key{suggestion(key, known, groups)}"


def _values(node: DictConfig) -> dict[str, Any]:
    """Return plain values, with interpolations as they are written."""
    container = OmegaConf.to_container(node, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def groups_of(root: DictConfig) -> dict[str, str | None]:
    """Return the groups in the defaults of a root file, each with its option or None."""
    named = [entry for entry in _values(root).get("defaults", []) if isinstance(entry, dict)]
    return {
        group: option for entry in named for group, option in entry.items() if "hydra/" not in group
    }


def _type_faults(key: str, value: Any, default: Any) -> Iterator[str]:
    """Check the type and range of a value at the root against its default."""
    if value is None or value == "" or "${" in str(value):
        # null turns off what has a word for its default, such as drawn=png, but not a number.
        empty = value == "" and (default is not None or is_path(key))
        if default != value and (empty or (value is None and type(default) in NUMBERS)):
            yield f"{key}: has no value; give {key}=…"
        return

    limited = (int,) if default is None and key in ranges.LIMITS else ()
    types = NUMBERS.get(type(default), limited)
    several = is_path(key) or not isinstance(default, (list, dict, type(None)))
    if isinstance(value, (list, dict)) and several:
        yield f"{key}: {value!r:.100} is not one value"
    elif not types or is_path(key):
        # A path may have a default of another type: resume=false, or the folder of a run.
        return
    elif not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        yield f"{key}: {value!r} is not {types[-1].__name__}"
    elif reason := ranges.fault(key, value):
        yield f"{key}: {reason}"


def _entry_faults(group: str, entries: Any) -> Iterator[str]:
    """Find entries of a group, such as `callbacks`, that lack the `_target_` of the others."""
    if not isinstance(entries, dict) or "_target_" in entries:
        return
    good = [
        name for name, entry in entries.items() if isinstance(entry, dict) and "_target_" in entry
    ]
    for name, entry in entries.items():
        if not good or entry is None or name in good or "${" in str(entry):
            continue
        close = difflib.get_close_matches(str(name), good, n=1, cutoff=0.6)
        guess = f"; did you mean {group}.{close[0]}?" if close else ""
        yield f"{group}.{name}: has no _target_{guess}"


def suggestion(key: str, cfg: DictConfig, groups: Collection[str] = ()) -> str:
    """Suggest what to write instead of a key that a configuration lacks.

    Args:
        key: as it was typed.
        cfg: the configuration.
        groups: further words that can be keys.

    Returns:
        the key with a `+`, if the constructor of its node takes it; else a similar key, or one
        whose last word is the same; else where all keys are listed.
    """
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, parent, throw_on_missing=False) if parent else None
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    signature = signatures.of(target) if target else None
    if signature is not None and last in signature.parameters:
        return f", but {target} takes it: write +{key}=…"

    known = [other for other in (*_keys("", cfg), *groups) if other != key]
    similar = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    same_last = [other for other in known if other.rpartition(".")[2] == last]
    roughly = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    best = [*similar, *same_last, *roughly]
    return f"; did you mean {best[0]}?" if best else "; --help shows them all"


def meant(name: str, known: Sequence[str]) -> str:
    """Return `; did you mean …?` if a known name is similar, else an empty string."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _keys(prefix: str, node: Any) -> Iterator[str]:
    """Yield the dotted keys of a node and of the nodes below it."""
    if not isinstance(node, DictConfig):
        return
    for key in map(str, node):
        full = f"{prefix}.{key}" if prefix else key
        yield full
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            yield from _keys(full, node[key])
