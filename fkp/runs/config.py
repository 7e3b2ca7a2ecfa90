"""Check a configuration against its constructors' signatures, and build what it describes.

A configuration is plain YAML with `_target_`, composed by Hydra. Nothing that it names is imported
before all of it has been checked.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from fkp import ranges
from fkp.errors import FkpError
from fkp.runs import keys, renamed, signatures
from fkp.runs.overrides import is_path
from fkp.runs.parameter_types import UNKNOWN, described, fits

# Keys of a node that are Hydra's, not arguments of the constructor.
SPECIAL = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")
# Keys that distinguish runs even if they were not given.
ALWAYS_VARIED = ("seed", "trainer.max_epochs", "datamodule.batch_size", "model.optimizer.lr")
# Errors by which a constructor refuses its arguments, by name: Lightning's shall not be imported.
REFUSALS = ("ValueError", "TypeError", "MisconfigurationException")
# Lines of OmegaConf's messages that are for developers.
CONTEXT = ("full_key:", "object_type=", "reference_type=")


class ConfigError(FkpError):
    """All faults of a configuration, a line each."""


def build(node: Any, /, **extra: Any) -> Any:
    """Instantiate a `_target_` node and those below it, as Hydra does, with plain dicts and lists.

    Args:
        node: of a configuration that has been checked.
        extra: further arguments, passed as they are, never instantiated.

    Raises:
        ConfigError: a constructor refused its arguments. Other exceptions are bugs and pass
            unchanged. With `_partial_`, this holds for the later call.
    """
    if isinstance(node, ListConfig):
        return [build(item) for item in node]
    if not isinstance(node, DictConfig):
        return node

    # Build the arguments.
    inner = build if node.get("_recursive_", True) else plain
    names = [name for name in node if name not in (*SPECIAL, *extra)]
    named = {str(name): inner(node[name]) for name in names} | extra
    if "_target_" not in node:
        return named

    # Build the object, or the function that will.
    key = _key(node) or str(node["_target_"])
    args = inner(node.get("_args_")) or []
    made = functools.partial(_call, key, _located(key, str(node["_target_"])), *args, **named)
    return made if node.get("_partial_") else made()


def _located(key: str, target: str) -> Callable[..., Any]:
    """Import what a `_target_` names, as far as Hydra allows it from a configuration."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        located: Callable[..., Any] = instantiate({"_target_": target, "_partial_": True})
        return located
    except InstantiationException as error:
        # Hydra's "Error locating" is caused by its "Error loading", and that by the import's error.
        loading = error.__cause__ or error
        if isinstance(loading.__cause__, (ModuleNotFoundError, AttributeError, type(None))):
            raise ConfigError(f"{key}._target_: {loading}") from error
        raise loading.__cause__ from None


def _call(key: str, target: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
    """Call a constructor; name the key if it refuses its arguments."""
    from hydra.errors import InstantiationException

    try:
        return target(*args, **named)
    except ConfigError:
        # It names its key already.
        raise
    except Exception as error:
        if isinstance(error, (FkpError, InstantiationException)) or _is_refusal(error):
            raise ConfigError(f"{key}: {error}") from error
        raise


def _is_refusal(error: Exception) -> bool:
    """Return whether a constructor refused its arguments, by a `raise` or by its signature.

    The same kinds of error, where Python itself raises them further inside, are bugs.
    """
    import hydra

    if not any(kind.__name__ in REFUSALS for kind in type(error).__mro__):
        return False
    callers = (Path(__file__), Path(hydra.__file__).parent)
    inside = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(Path(frame.filename).is_relative_to(path) for path in callers)
    ]
    return not inside or (inside[-1].line or "").startswith("raise ")


def _key(node: DictConfig) -> str:
    """Return the full key of a node; OmegaConf's own omits the brackets of a node in a list."""
    return str(node._get_full_key("_target_")).removesuffix("_target_").removesuffix(".")


def plain(node: Any) -> Any:
    """Return resolved values in dicts and lists."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def varied(cfg: DictConfig) -> dict[str, Any]:
    """Return what distinguishes a run from others.

    Args:
        cfg: of the run.

    Returns:
        the options of its groups, a few keys that are often varied, and all overridden keys, with
        their values, except paths.
    """
    from hydra.core.hydra_config import HydraConfig

    run = HydraConfig.get()
    choices = run.runtime.choices.items()
    options = {group: option for group, option in choices if "/" not in group and option}

    given = [override.lstrip("+~").partition("=")[0] for override in run.overrides.task]
    values = {
        key: OmegaConf.select(cfg, key)
        for key in (*ALWAYS_VARIED, *given)
        if key not in options and not is_path(key)
    }
    plain_values = {k: v for k, v in values.items() if isinstance(v, (bool, int, float, str))}
    return options | plain_values


def command() -> list[str]:
    """Return the overrides of the run, as they were written."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)


def option(group: str) -> str | None:
    """Return the option of a group of the run; None if it has none."""
    from hydra.core.hydra_config import HydraConfig

    chosen = HydraConfig.get().runtime.choices.get(group)
    return None if chosen is None else str(chosen)


def check(cfg: DictConfig, root: DictConfig | None = None) -> None:
    """Bind every `_target_` to its signature, without importing any.

    Args:
        cfg: the composed configuration.
        root: its root file, if keys that nothing reads are to be faults, too.

    Raises:
        ConfigError: all faults at once, by key, each with a suggestion where there is one.
    """
    if root is not None:
        known = [*map(str, root), *keys.groups_of(root)]
        if old := list(renamed.faults_of_config(cfg, known)):
            raise ConfigError("\n".join(old))

    faults: list[str] = []
    _check_node(cfg, faults)
    faults += keys.faults(cfg, root) if root is not None else []
    if faults:
        # Once each, even where an interpolation shows a node twice.
        raise ConfigError("\n".join(dict.fromkeys(faults)))


def _check_node(node: Any, faults: list[str]) -> Any:
    """Return the plain values of a node; add its faults.

    Args:
        node: of a configuration, or a plain value.
        faults: extended in place.

    Returns:
        dicts, lists and plain values, with UNKNOWN for those that are missing or unresolved.
    """
    if not OmegaConf.is_config(node):
        return node

    values: dict[Any, Any] = {}
    for name in range(len(node)) if isinstance(node, ListConfig) else node:
        key = node._get_full_key(name)
        values[name] = UNKNOWN
        try:
            values[name] = _check_node(node[name], faults)
        except MissingMandatoryValue:
            faults.append(f"{key}: has no value; give {key}=…")
        except InterpolationToMissingValueError:
            # Reported where the value is missing.
            pass
        except OmegaConfBaseException as error:
            faults.append(f"{key}: {said(error)}")

    if isinstance(node, ListConfig):
        return list(values.values())
    if values.get("_target_", UNKNOWN) is not UNKNOWN:
        faults += _target_faults(_key(node), values)
    return values


def said(error: BaseException) -> str:
    """Return the message of an error of OmegaConf or Hydra, without the lines for developers."""
    lines = str(error).strip().splitlines()
    return "\n".join(line for line in lines if not line.strip().startswith(CONTEXT))


def _target_faults(key: str, node: dict[str, Any]) -> Iterator[str]:
    """Check the values of a node against the signature of its `_target_`."""
    target = str(node["_target_"])
    try:
        signature = signatures.of(target)
    except signatures.Unknown as unknown:
        place, name, known = unknown.args
        guess = keys.meant(name, known)
        yield f"{key}._target_: {target!r} does not exist; {place} has no {name!r}{guess}"
        return
    if signature is None:
        return

    args = node.get("_args_") or []
    if not isinstance(args, list):
        if args is not UNKNOWN:
            yield f"{key}._args_: {args!r} is not a list"
        return
    by_position = dict(zip(signature.positional, args, strict=False))
    if len(args) > len(by_position) and not signature.any_positional:
        count = len(by_position)
        yield f"{key}._args_: {target} takes {count} without a name, not {len(args)}"

    for i, (name, value) in enumerate(by_position.items()):
        yield from _value_faults(f"{key}._args_[{i}]", target, signature.parameters[name], value)
    yield from _named_faults(key, target, signature, node, by_position)


def _named_faults(
    key: str,
    target: str,
    signature: signatures.Signature,
    node: dict[str, Any],
    by_position: dict[str, Any],
) -> Iterator[str]:
    """Check the arguments that are given by name, and find those that are missing."""
    for name, value in node.items():
        if name in SPECIAL:
            continue
        parameter = signature.parameters.get(name)
        if parameter is None:
            if not signature.open:
                guess = keys.meant(name, list(signature.parameters))
                yield f"{key}.{name}: {target} takes no {name!r}{guess}"
        elif name in by_position:
            yield f"{key}.{name}: is given in _args_ already"
        else:
            yield from _value_faults(f"{key}.{name}", target, parameter, value)

    if not node.get("_partial_"):
        for name, parameter in signature.parameters.items():
            if parameter.required and name not in node and name not in by_position:
                yield f"{key}: {target} needs {name!r}"


def _value_faults(
    place: str, target: str, parameter: signatures.Parameter, value: Any
) -> Iterator[str]:
    """Check a value against the annotation and the range of its parameter."""
    annotation = parameter.annotation
    if annotation is not None and not fits(value, annotation):
        yield f"{place}: {value!r:.100} is not {described(value, annotation)}"
    elif target.partition(".")[0] in ranges.OURS and (
        reason := ranges.fault(parameter.name, value)
    ):
        yield f"{place}: {reason}"
