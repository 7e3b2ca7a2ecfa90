"""Plain YAML with `_target_`: composed by Hydra, checked against the constructors' signatures, then built.

Nothing here imports what a configuration names before all of it has been checked.
"""

from __future__ import annotations

import ast
import difflib
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

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


def main(name: str) -> Callable[[Callable[[DictConfig], float | None]], Callable[[], float | None]]:
    """Make a function of a configuration the entry of a script, as `hydra.main`, with conf/ beside the script.

    The configuration is checked first. A user's mistake, there or in the body, is one message on stderr and exit
    code 2; anything else keeps its traceback.

    Args:
        name: of the root file in conf/.
    """

    def decorate(body: Callable[[DictConfig], float | None]) -> Callable[[], float | None]:
        conf = Path(str(sys.modules[body.__module__].__file__)).resolve().parent / "conf"

        @functools.wraps(body)
        def task(cfg: DictConfig) -> float | None:
            from hydra.core.hydra_config import HydraConfig
            from hydra.types import RunMode

            hydra_config = HydraConfig.get()
            try:
                try:
                    check(cfg)
                except ConfigError:
                    _forget(Path(hydra_config.runtime.output_dir), str(hydra_config.output_subdir))
                    raise
                return body(cfg)
            except FkpError as error:
                if hydra_config.mode == RunMode.MULTIRUN:
                    raise  # the launcher decides what a failed job means
                raise SystemExit(_say(error)) from None

        @functools.wraps(body)
        def entry() -> float | None:
            import hydra

            sys.argv[1:] = [_quoted(argument) for argument in sys.argv[1:]]
            # Hydra would print its own error and exit with 1; with this it hands the error on.
            asked_for_tracebacks = "HYDRA_FULL_ERROR" in os.environ
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")
            run = hydra.main(version_base="1.3", config_path=str(conf), config_name=name)(task)
            try:
                return run()
            except KeyboardInterrupt:
                raise SystemExit(130) from None
            except BrokenPipeError:  # `train.py --help | head`: the reader has had enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise SystemExit(0) from None
            except Exception as error:
                if asked_for_tracebacks or not (isinstance(error, FkpError) or _is_about_config(error)):
                    raise
                message = error if isinstance(error, FkpError) else _reworded(error, conf, name)
                raise SystemExit(_say(message)) from None

        return entry

    return decorate


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
        yield f"{key}._target_: {target!r} does not exist; {place} has no {name!r}{_meant(name, known)}"
        return
    if signature is None:
        return
    for name, value in node.items():
        if name in SPECIAL:
            continue
        parameter = signature.parameters.get(name)
        if parameter is None:
            if not signature.open:
                yield f"{key}.{name}: {target} takes no {name!r}{_meant(name, list(signature.parameters))}"
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
        return f"one of {', '.join(options)}{_meant(str(value), options)}"
    return ast.unparse(annotation)


def _meant(name: str, known: Sequence[str]) -> str:
    """`; did you mean …?`, if something is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _say(message: object) -> int:
    print(message, file=sys.stderr)
    return 2


def _quoted(argument: str) -> str:
    """A path given as it is, with blanks, commas or brackets, quoted for Hydra's grammar."""
    key, equals, value = argument.partition("=")
    if not equals or key not in PATHS or value[:1] in ("'", '"', "", "[") or value in ("null", "???"):
        return argument
    if "$" in value or not set(value) & set(" ,(){}[]='\"\\:"):
        return argument
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{escaped}"'


def _forget(run_dir: Path, subdir: str) -> None:
    """Remove the folder that Hydra has made for a run that never began, if nothing else is in it."""
    if run_dir.is_dir() and all(path.name == subdir or path.suffix == ".log" for path in run_dir.iterdir()):
        shutil.rmtree(run_dir)
        for parent in list(run_dir.parents)[:2]:
            if parent.name != "outputs" and not any(parent.iterdir()):
                parent.rmdir()


def _is_about_config(error: Exception) -> bool:
    from hydra.errors import HydraException

    return isinstance(error, (HydraException, MissingMandatoryValue))


def _reworded(error: Exception, conf: Path, name: str) -> str:
    """Hydra's error about an override, in a few words and with a suggestion."""
    from hydra.errors import MissingConfigException, OverrideParseException

    text = str(error).strip()
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not key=value; quote a value with special characters: 'key=\"…\"'"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option}: no such option; there is {', '.join(error.options)}{_meant(option, error.options)}"
    lines = text.splitlines()
    key = lines[0].split("'")[1] if lines and lines[0].count("'") >= 2 else ""
    if "Could not override" in text and key:
        return f"{key}: no such key{_meant_key(key, conf, name)}"
    return lines[0] if lines else repr(error)


def _meant_key(key: str, conf: Path, name: str) -> str:
    """What to write instead of a key that the default configuration lacks: itself with a +, if the constructor takes
    it; else one that is alike as a whole, or in its last part."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        cfg = compose(name)
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, parent, throw_on_missing=False) if parent else None
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    signature = signatures.of(target) if target else None
    if signature is not None and last in signature.parameters:
        return f", but {target} takes it: write +{key}=…"
    keys = [*_keys("", cfg), *(folder.name for folder in conf.iterdir() if folder.is_dir())]
    whole = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    alike = [other for other in keys if other.rpartition(".")[2] == last]
    loose = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    best = [*whole, *alike, *loose]
    return f"; did you mean {best[0]}?" if best else "; --help shows them all"


def _keys(prefix: str, node: Any) -> Iterator[str]:
    if isinstance(node, DictConfig):
        for key in map(str, node):
            full = f"{prefix}.{key}" if prefix else key
            yield full
            if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
                yield from _keys(full, node[key])
