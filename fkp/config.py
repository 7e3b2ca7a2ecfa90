"""Plain YAML with `_target_`: composed by Hydra, checked against the constructors' signatures, then built.

Nothing here imports what a configuration names before all of it has been checked.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fkp import signatures
from fkp.errors import FkpError

SPECIAL = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")
PATHS = ("image", "ckpt", "ckpt_path", "data.root", "run_dir")  # their values may hold what Hydra's grammar does not
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
NEVER_PLAIN = ("Tensor", "Module", "Optimizer", "LRScheduler", "Callback", "Logger", "Markup", "Transform")


class ConfigError(FkpError):
    """Every fault of a configuration, a line each."""


def build(node: Any, **extra: Any) -> Any:
    """Instantiate a `_target_` node; `extra` arguments are handed over as they are, never instantiated."""
    from hydra.utils import instantiate

    if node.get("_partial_"):
        return instantiate(node, _convert_="all", **extra)
    return instantiate(node, _convert_="all", _partial_=True)(**extra)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Resolved values in dicts and lists."""
    values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return values


def varied(cfg: DictConfig) -> dict[str, Any]:
    """What distinguishes a run: the options of its groups, a few keys everybody varies, and all it was told to."""
    from hydra.core.hydra_config import HydraConfig

    run = HydraConfig.get()
    options = {group: option for group, option in run.runtime.choices.items() if "/" not in group and option}
    told = [override.lstrip("+~").partition("=")[0] for override in run.overrides.task]
    values = {key: OmegaConf.select(cfg, key) for key in (*EVERYBODY, *told) if key not in (*options, *PATHS)}
    plain_values = {k: v for k, v in values.items() if isinstance(v, (bool, int, float, str))}
    return options | plain_values


def check(cfg: DictConfig) -> None:
    """Bind every `_target_` to its signature, importing none of them.

    Raises:
        ConfigError: all faults at once, by key, each with a suggestion where there is one.
    """
    faults: list[str] = []
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        # What depends on a missing value would only be reported twice.
        faults += [f"{key}: has no value; give {key}=…" for key in missing] or _faults("", plain(cfg))
    except OmegaConfBaseException as error:
        faults.append(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}")
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))


def _faults(key: str, node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for i, item in enumerate(node):
            yield from _faults(f"{key}[{i}]", item)
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        yield from _target_faults(key, node)
    for name, value in node.items():
        yield from _faults(f"{key}.{name}" if key else name, value)


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
    for name, value in node.items():
        if name in SPECIAL:
            continue
        parameter = signature.parameters.get(name)
        if parameter is None:
            if not signature.open:
                yield f"{key}.{name}: {target} takes no {name!r}{meant(name, list(signature.parameters))}"
        elif parameter.annotation is not None and not _fits(value, parameter.annotation):
            yield f"{key}.{name}: {value!r} is not {_wanted(value, parameter.annotation)}"
    if not node.get("_partial_") and not node.get("_args_"):
        for name, parameter in signature.parameters.items():
            if parameter.required and name not in node:
                yield f"{key}: {target} needs {name!r}"


def _fits(value: Any, wanted: ast.expr) -> bool:
    """Whether a plain value can be what an annotation asks for; true where the annotation is not understood."""
    if isinstance(value, dict) and "_target_" in value:
        return True
    if isinstance(wanted, ast.Constant):
        if isinstance(wanted.value, str):
            return _fits(value, ast.parse(wanted.value, mode="eval").body)
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
            return value in [part.value for part in inner if isinstance(part, ast.Constant)]
        if name in PLAIN:
            return _fits_container(value, name, inner)
        return True
    name = ast.unparse(wanted).rpartition(".")[2]
    if name in NEVER_PLAIN:
        return False
    if name not in PLAIN:
        return True
    return isinstance(value, PLAIN[name]) and not (isinstance(value, bool) and name in ("int", "float"))


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
        parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        options = [str(part.value) for part in parts if isinstance(part, ast.Constant)]
        return f"one of {', '.join(options)}{meant(str(value), options)}"
    return ast.unparse(annotation)


def meant(name: str, known: Sequence[str]) -> str:
    """`; did you mean …?`, if something is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
