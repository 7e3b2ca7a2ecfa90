"""Rewrite overrides as people type them in Hydra's grammar: paths need no quotes, `~` is home."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

# Keys whose value is a path, by their last word. A path may contain commas, or be the number 2024.
PATH = re.compile(
    r"(.*[._])?"
    r"(image|images|root|file|folder|dir|path|dirpath|ckpt|weights|markup|out|from|resume|sweep)"
)
# Values of such a key that are not text.
NO_PATH = ("", "null", "true", "false", "???")
# An unquoted path below home within a list or dict.
HOME = re.compile(r"(?<=[\[{,:\s])~[^,\]}]*")
# Whole numbers from one to another, both included: 0..15.
NUMBERS = re.compile(r"(-?\d+)\.\.(-?\d+)")
# A comma outside quotes.
COMMA = re.compile(r""",(?=(?:[^"']*["'][^"']*["'])*[^"']*$)""")


def key(override: str) -> str:
    """Return the key that an override sets, adds or removes.

    >>> key("seed=1"), key("+x.y=2"), key("~logger")
    ('seed', 'x.y', 'logger')
    """
    return override.lstrip("+~").partition("=")[0]


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested dictionaries by their dotted keys.

    >>> dict(leaves({"trainer": {"max_epochs": 3}, "seed": 1}))
    {'trainer.max_epochs': 3, 'seed': 1}
    """
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


def is_path(key: str) -> bool:
    """Return whether the value of a key is a path.

    >>> is_path("data.root"), is_path("hydra.run.dir"), is_path("detector.model"), is_path("model")
    (True, True, True, False)
    """
    key = key.lstrip("+")
    return PATH.fullmatch(key) is not None or key.endswith(".model")


def typed(arguments: Sequence[str], groups: Mapping[str, str | None]) -> list[str]:
    """Rewrite a command line in Hydra's grammar.

    Values that Hydra cannot read are quoted, `~` is replaced by home, and `group=null` removes the
    group. With `-m`, a comma in a path separates jobs; without it, the comma belongs to the path.
    With `-m`, `0..15` is each whole number from 0 to 15.

    Args:
        arguments: as they were typed.
        groups: of the configuration, each with its default option.
    """
    # Hydra takes no overrides on both sides of an option, so `-m` comes first.
    multirun = [one for one in arguments if one in ("-m", "--multirun")]
    rest = [one for one in arguments if one not in multirun]

    # A group that is empty by default cannot be removed.
    removals = [f"{group}={word}" for group in groups for word in ("null", "none", "false")]
    kept = [one for one in rest if one.lower() not in removals or groups[one.partition("=")[0]]]
    written = [
        f"~{one.partition('=')[0]}" if one.lower() in removals else _typed(one, bool(multirun))
        for one in kept
    ]
    return [*multirun[:1], *written]


def _typed(argument: str, sweep: bool) -> str:
    """Rewrite one argument; `sweep` is whether commas separate jobs."""
    key, equals, value = argument.partition("=")
    if not equals or key.startswith("~"):
        return argument
    # An option, such as --config-dir=~/conf.
    if key.startswith("-"):
        return f"{key}={os.path.expanduser(value)}"

    path = is_path(key)
    if not sweep:
        return f"{key}={_literal(value, path)}"
    if not path and (numbers := NUMBERS.fullmatch(value)):
        # In Hydra, the end of a range is not among its values.
        return f"{key}=range({numbers[1]},{int(numbers[2]) + 1})"
    # A list, a dict, or a function such as choice(a,b).
    if value[:1] in ("[", "{") or re.fullmatch(r"\w+\(.*\)", value):
        return argument
    return f"{key}={','.join(_literal(one.strip(), path) for one in COMMA.split(value))}"


def _literal(value: str, path: bool) -> str:
    """Rewrite a value in Hydra's grammar.

    Args:
        value: as it was typed.
        path: whether it is a path, and so text, even if it reads as a number or as several values.
    """
    # Quoted, or below home
    first = value[:1]
    if first in ("'", '"'):
        home = os.path.expanduser("~") if re.match(r"~(/|.$)", value[1:]) else ""
        return first + _escaped(home, first) + value[2:] if home else value
    if first == "~":
        return _quoted(os.path.expanduser(value))
    if "${" in value or value.lower() in NO_PATH:
        return value

    try:
        understood = _parsed(value)
    except ValueError:
        if first in ("[", "{") and (not path or value[-1:] in ("]", "}")):
            return HOME.sub(lambda found: _quoted(os.path.expanduser(found[0])), value)
        return _quoted(value)
    text_already = understood == value.strip() or isinstance(understood, (list, dict))
    return value if text_already or not path else _quoted(value)


def _parsed(value: str) -> Any:
    """Parse a value as Hydra does.

    Raises:
        ValueError: the value does not follow Hydra's grammar.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException as error:
        raise ValueError(value) from error


def _quoted(text: str) -> str:
    return f'"{_escaped(text, chr(34), end=True)}"'


def _escaped(text: str, quote: str, end: bool = False) -> str:
    """Escape text between quotes: Hydra reads a backslash as an escape only before a quote.

    Args:
        text: to escape.
        quote: that surrounds it.
        end: whether the closing quote follows the text.
    """
    text = re.sub(rf"(\\*){quote}", lambda found: found[1] * 2 + "\\" + quote, text)
    return re.sub(r"(\\+)$", r"\1\1", text) if end else text


def text(argument: str) -> str:
    """Return the value of an override, without its quotes.

    >>> text('resume="my run"'), text("resume=true")
    ('my run', 'true')
    """
    value = argument.partition("=")[2]
    try:
        return str(_parsed(value)) if value[:1] in ("'", '"') else value
    except ValueError:
        # Hydra will report it.
        return value


def expand_home(cfg: DictConfig | ListConfig) -> None:
    """Replace a leading `~` by home in all texts of a configuration, also those of YAML files."""
    for key in range(len(cfg)) if isinstance(cfg, ListConfig) else list(cfg):
        if OmegaConf.is_missing(cfg, key) or OmegaConf.is_interpolation(cfg, key):
            continue
        value = cfg[key]
        if isinstance(value, str) and value.startswith("~"):
            cfg[key] = os.path.expanduser(value)
        elif OmegaConf.is_config(value):
            expand_home(value)
