"""Making a function of a configuration the entry of a script: what a user mistypes is one message, and exit code 2."""

from __future__ import annotations

import ctypes
import difflib
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fkp import signatures
from fkp.config import PATHS, check, meant, said
from fkp.errors import FkpError

EXTRAS = {"hydra/launcher/submitit": "slurm", "hydra/launcher/joblib": "sweep"}  # where others' launchers come from


def main(
    name: str,
    arguments: Callable[[list[str]], list[str]] = list,
    job: Callable[[Path], float] | None = None,
) -> Callable[[Callable[[DictConfig], float | None]], Callable[[], float | None]]:
    """Make a function of a configuration the entry of a script, as `hydra.main`; conf/ lies beside it or above.

    The configuration is checked first. A user's mistake, there or in the body, is one message on stderr and exit
    code 2; anything else keeps its traceback, and with HYDRA_FULL_ERROR=1 a mistake does too.

    Args:
        name: of the root file in conf/.
        arguments: changes the command line before Hydra reads it.
        job: what a sweep does instead, for each of its jobs; takes the script.
    """

    def decorate(body: Callable[[DictConfig], float | None]) -> Callable[[], float | None]:
        script = Path(str(sys.modules[body.__module__].__file__)).resolve()
        conf = next((above / "conf" for above in script.parents if (above / "conf").is_dir()), script.parent / "conf")
        full_error: str | None = None  # what the user has set
        begun = False

        @functools.wraps(body)
        def task(cfg: DictConfig) -> float | None:
            from hydra.core.hydra_config import HydraConfig
            from hydra.types import RunMode

            nonlocal begun
            begun, hydra_config = True, HydraConfig.get()
            try:
                with _full_error(full_error):
                    if job and hydra_config.mode == RunMode.MULTIRUN:
                        return job(script)
                    check(cfg)
                    return body(cfg)
            except FkpError as error:
                if hydra_config.output_subdir is not None:  # else it is the folder of another process
                    forget(Path(hydra_config.runtime.output_dir), hydra_config.output_subdir)
                if hydra_config.mode == RunMode.MULTIRUN or full_error == "1":
                    raise  # the launcher decides what a failed job means; who asks for tracebacks gets them
                raise SystemExit(_say(error)) from None

        @functools.wraps(body)
        def entry() -> float | None:
            import hydra

            settle()
            try:
                sys.argv[1:] = [_quoted(argument) for argument in arguments(sys.argv[1:])]
            except FkpError as error:
                raise SystemExit(_say(error)) from None
            nonlocal full_error, begun
            full_error, begun = os.environ.get("HYDRA_FULL_ERROR"), False
            run = hydra.main(version_base="1.3", config_path=str(conf), config_name=name)(task)
            try:
                with _full_error("1"):  # else Hydra would print its own error and exit with 1; so it hands it on
                    return run()
            except KeyboardInterrupt:
                raise SystemExit(130) from None
            except BrokenPipeError:  # `train.py --help | head`: the reader has had enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise SystemExit(0) from None
            except Exception as error:
                if full_error == "1" or not (isinstance(error, FkpError) or _is_about_config(error, begun)):
                    raise
                message = error if isinstance(error, FkpError) else _reworded(error, conf, name)
                raise SystemExit(_say(message)) from None

        return entry

    return decorate


@contextmanager
def _full_error(value: str | None) -> Iterator[None]:
    """HYDRA_FULL_ERROR set for a while, or unset: it is Hydra's, and not for what the body calls."""
    before = os.environ.pop("HYDRA_FULL_ERROR", None)
    os.environ |= {"HYDRA_FULL_ERROR": value} if value is not None else {}
    try:
        yield
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        os.environ |= {"HYDRA_FULL_ERROR": before} if before is not None else {}


def settle() -> None:
    """Set what the C libraries below torch do with threads and memory; call it before torch is imported.

    Threads that wait for each other are to sleep soon: as they come they spin, and on cores that others use too a step
    then takes up to five times as long. And freed memory is to be kept: glibc gives large blocks back to the system and
    gets them anew, page by page, in every step; without that, a step of `two_conv` takes a fifth less.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "50000")
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
        if mallopt is not None:
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD, bytes
            mallopt(-3, 2**30)  # M_MMAP_THRESHOLD


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


def forget(run_dir: Path, subdir: str = "config") -> None:
    """Remove the folder that Hydra has made for a run that never began, if nothing else is in it."""
    if run_dir.is_dir() and all(path.name == subdir or path.suffix in (".log", ".lock") for path in run_dir.iterdir()):
        shutil.rmtree(run_dir)
        for parent in list(run_dir.parents)[:2]:
            if parent.name != "outputs" and not any(parent.iterdir()):
                parent.rmdir()


def _is_about_config(error: Exception, begun: bool) -> bool:
    """Whether it comes of composing the configuration; Hydra is loose with its kinds of error until a run has begun."""
    from hydra.errors import HydraException

    loose = (OmegaConfBaseException, yaml.YAMLError, ValueError)
    return isinstance(error, (HydraException, MissingMandatoryValue)) or (not begun and isinstance(error, loose))


def _reworded(error: Exception, conf: Path, name: str) -> str:
    """Hydra's error about an override, in a few words and with a suggestion."""
    from hydra.errors import MissingConfigException, OverrideParseException

    text = said(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}:{mark.line + 1}:{mark.column + 1}: {error.problem}"
    if isinstance(error, OverrideParseException):
        given = str(error.override)
        takes_a_picture = "image" in list(OmegaConf.load(conf / f"{name}.yaml"))
        if takes_a_picture and "=" not in given:
            return f"{given}: not key=value; did you mean image={given}?"
        return f"{given}: not key=value; quote a value with special characters: 'key=\"…\"'"
    missing = str(error.missing_cfg_file) if isinstance(error, MissingConfigException) else ""
    if extra := next((EXTRAS[launcher] for launcher in EXTRAS if missing.startswith(launcher)), None):
        return f'hydra/launcher: this one is not installed; pip install -e ".[{extra}]"'
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option}: no such option; there is {', '.join(error.options)}{meant(option, error.options)}"
    if text.startswith("Could not override") and text.count("'") >= 2:
        key = text.split("'")[1]
        return f"{key}: no such key{_meant_key(key, conf, name)}"
    if isinstance(error.__cause__, OmegaConfBaseException):
        text = f"{text}\n{said(error.__cause__)}"
    where = getattr(error, "full_key", None)  # of OmegaConf's
    return f"{where}: {text}" if where else text or repr(error)


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
