"""Plain YAML with `_target_`: composed by Hydra, checked against the constructors' signatures, then built.

Nothing here imports what a configuration names before all of it has been checked.
"""

from __future__ import annotations

import ast
import difflib
import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
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
from fkp.runs import keys, signatures
from fkp.runs.overrides import is_path

SPECIAL = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")
EVERYBODY = ("seed", "trainer.max_epochs", "datamodule.batch_size", "model.optimizer.lr")
PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
    "Path": (str,),
    "list": (list,),
    "List": (list,),
    "tuple": (list,),
    "Tuple": (list,),
    "Sequence": (list,),
    "Iterable": (list,),
    "set": (list,),
    "dict": (dict,),
    "Dict": (dict,),
    "Mapping": (dict,),
}
REFUSALS = (
    "ValueError",
    "TypeError",
    "MisconfigurationException",
)  # the last is Lightning's; by name: no import
NEVER_PLAIN = (
    "Tensor",
    "Module",
    "Optimizer",
    "LRScheduler",
    "Callback",
    "Logger",
    "Markup",
    "Transform",
)

UNKNOWN = ...  # stands for a value that is missing or that an interpolation does not find


class ConfigError(FkpError):
    """Every fault of a configuration, a line each."""


def build(node: Any, /, **extra: Any) -> Any:
    """Instantiate a `_target_` node, and those below it, as Hydra does, with plain dicts and lists.

    Args:
        node: of a configuration that has been checked.
        extra: further arguments, handed over as they are, never instantiated.

    Raises:
        ConfigError: a constructor has refused what it was given. What else it raises is a bug and passes as it is.
            With `_partial_` this holds for the later call.
    """
    if isinstance(node, ListConfig):
        return [build(item) for item in node]
    if not isinstance(node, DictConfig):
        return node
    inner = build if node.get("_recursive_", True) else plain
    named = {
        str(name): inner(node[name]) for name in node if name not in (*SPECIAL, *extra)
    } | extra
    if "_target_" not in node:
        return named
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
        # Hydra's "Error locating" is caused by its "Error loading", and that by what the import has raised.
        loading = error.__cause__ or error
        if isinstance(loading.__cause__, (ModuleNotFoundError, AttributeError, type(None))):
            raise ConfigError(f"{key}._target_: {loading}") from error
        raise loading.__cause__ from None


def _call(key: str, target: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
    from hydra.errors import InstantiationException

    try:
        return target(*args, **named)
    except ConfigError:
        raise  # it has its key already
    except Exception as error:
        if isinstance(error, (FkpError, InstantiationException)) or _is_refusal(error):
            raise ConfigError(f"{key}: {error}") from error
        raise


def _is_refusal(error: Exception) -> bool:
    """Whether a constructor refuses its arguments: with a `raise` for a wrong value, or because it takes no such ones.

    The same kinds of error, where Python itself raises them further inside, are bugs.
    """
    import hydra

    if not any(kind.__name__ in REFUSALS for kind in type(error).__mro__):
        return False
    callers = (Path(__file__), Path(hydra.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    inside = [
        frame
        for frame in frames
        if not any(Path(frame.filename).is_relative_to(path) for path in callers)
    ]
    return not inside or (inside[-1].line or "").startswith("raise ")


def _key(node: DictConfig) -> str:
    """Of a node; asked for it alone, OmegaConf leaves out the brackets of one in a list."""
    return str(node._get_full_key("_target_")).removesuffix("_target_").removesuffix(".")


def plain(node: Any) -> Any:
    """Resolved values in dicts and lists."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def varied(cfg: DictConfig) -> dict[str, Any]:
    """What distinguishes a run: the options of its groups, a few keys everybody varies, and all it was told to."""
    from hydra.core.hydra_config import HydraConfig

    run = HydraConfig.get()
    options = {
        group: option
        for group, option in run.runtime.choices.items()
        if "/" not in group and option
    }
    told = [override.lstrip("+~").partition("=")[0] for override in run.overrides.task]
    values = {
        key: OmegaConf.select(cfg, key)
        for key in (*EVERYBODY, *told)
        if key not in options and not is_path(key)
    }
    plain_values = {k: v for k, v in values.items() if isinstance(v, (bool, int, float, str))}
    return options | plain_values


def command() -> list[str]:
    """The overrides that the run was given, as they were written."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)


def check(cfg: DictConfig, root: DictConfig | None = None) -> None:
    """Bind every `_target_` to its signature, importing none of them.

    Args:
        cfg: the composed configuration.
        root: its root file, if keys that nothing reads are to be faults, too.

    Raises:
        ConfigError: all faults at once, by key, each with a suggestion where there is one.
    """
    faults: list[str] = []
    _checked(cfg, faults)
    faults += keys.faults(cfg, root) if root is not None else []
    if faults:
        raise ConfigError(
            "\n".join(dict.fromkeys(faults))
        )  # once where an interpolation shows a node twice


def _checked(node: Any, faults: list[str]) -> Any:
    """The plain values of a node, with UNKNOWN for those that cannot be had; adds what is wrong with them."""
    if not OmegaConf.is_config(node):
        return node
    values: dict[Any, Any] = {}
    for name in range(len(node)) if isinstance(node, ListConfig) else node:
        key = node._get_full_key(name)
        values[name] = UNKNOWN
        try:
            values[name] = _checked(node[name], faults)
        except MissingMandatoryValue:
            faults.append(f"{key}: has no value; give {key}=…")
        except InterpolationToMissingValueError:
            pass  # that is told where the value is missing
        except OmegaConfBaseException as error:
            faults.append(f"{key}: {said(error)}")
    if isinstance(node, ListConfig):
        return list(values.values())
    if values.get("_target_", UNKNOWN) is not UNKNOWN:
        faults += _target_faults(_key(node), values)
    return values


def said(error: BaseException) -> str:
    """What an error of OmegaConf or Hydra says, all lines of it but those for developers."""
    context = ("full_key:", "object_type=", "reference_type=")
    return "\n".join(
        line for line in str(error).strip().splitlines() if not line.strip().startswith(context)
    )


def _target_faults(key: str, node: dict[str, Any]) -> Iterator[str]:
    target = str(node["_target_"])
    try:
        signature = signatures.of(target)
    except signatures.Unknown as unknown:
        place, name, known = unknown.args
        yield f"{key}._target_: {target!r} does not exist; {place} has no {name!r}{meant(name, known)}"
        return
    if signature is None:
        return
    args = node.get("_args_") or []
    if not isinstance(args, list):
        if args is not UNKNOWN:
            yield f"{key}._args_: {args!r} is not a list"
        return
    placed = dict(zip(signature.positional, args, strict=False))
    if len(args) > len(placed) and not signature.any_positional:
        yield f"{key}._args_: {target} takes {len(placed)} without a name, not {len(args)}"
    given = [(f"_args_[{i}]", name, value) for i, (name, value) in enumerate(placed.items())]
    for place, name, value in given + [
        (name, name, value) for name, value in node.items() if name not in SPECIAL
    ]:
        parameter = signature.parameters.get(name)
        if parameter is None:
            if not signature.open:
                yield f"{key}.{name}: {target} takes no {name!r}{meant(name, list(signature.parameters))}"
        elif place == name and name in placed:
            yield f"{key}.{name}: is given in _args_ already"
        elif parameter.annotation is not None and not _fits(value, parameter.annotation):
            yield f"{key}.{place}: {value!r:.100} is not {_wanted(value, parameter.annotation)}"
        elif target.partition(".")[0] in ranges.OURS and (reason := ranges.fault(name, value)):
            yield f"{key}.{place}: {reason}"
    if not node.get("_partial_"):
        for name, parameter in signature.parameters.items():
            if parameter.required and name not in node and name not in placed:
                yield f"{key}: {target} needs {name!r}"


def _fits(value: Any, wanted: ast.expr) -> bool:
    """Whether a plain value can be what an annotation asks for; true where either is not understood."""
    if value is UNKNOWN or (isinstance(value, dict) and "_target_" in value):
        return True
    if isinstance(wanted, ast.Constant):
        if isinstance(wanted.value, str):
            try:
                return _fits(value, ast.parse(wanted.value, mode="eval").body)
            except SyntaxError:
                return True
        return wanted.value is not None or value is None
    if isinstance(wanted, ast.BinOp):
        return _fits(value, wanted.left) or _fits(value, wanted.right)
    if isinstance(wanted, ast.Subscript):
        name = ast.unparse(wanted.value).rpartition(".")[2]
        inner = wanted.slice.elts if isinstance(wanted.slice, ast.Tuple) else [wanted.slice]
        if name == "Optional":
            return value is None or _fits(value, inner[0])
        if name == "Union":
            return any(_fits(value, part) for part in inner)
        if name == "Literal":
            options = [part.value for part in inner if isinstance(part, ast.Constant)]
            return value in options or len(options) < len(inner)
        if name in PLAIN:
            return _fits_container(value, name, inner)
        return True
    name = ast.unparse(wanted).rpartition(".")[2]
    if name in NEVER_PLAIN:
        return False
    if name not in PLAIN:
        return True
    return isinstance(value, PLAIN[name]) and not (
        isinstance(value, bool) and name in ("int", "float")
    )


def _fits_container(value: Any, name: str, inner: list[ast.expr]) -> bool:
    if isinstance(value, dict):
        return dict in PLAIN[name] and all(_fits(item, inner[-1]) for item in value.values())
    if not isinstance(value, list) or list not in PLAIN[name]:
        return False
    if name in ("tuple", "Tuple"):
        if len(inner) == 2 and isinstance(inner[1], ast.Constant) and inner[1].value is ...:
            return all(_fits(item, inner[0]) for item in value)
        return len(inner) == len(value) and all(map(_fits, value, inner))
    return all(_fits(item, inner[0]) for item in value)


def _wanted(value: Any, annotation: ast.expr) -> str:
    """An annotation in words."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("Literal"):
        parts = (
            annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        )
        options = [str(part.value) for part in parts if isinstance(part, ast.Constant)]
        return f"one of {', '.join(options)}{meant(str(value), options)}"
    return ast.unparse(annotation)


def meant(name: str, known: Sequence[str]) -> str:
    """`; did you mean …?`, if something is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
