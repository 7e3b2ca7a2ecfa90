"""Making a function of a configuration the entry of a script: what a user mistypes is one message, and exit code 2."""

from __future__ import annotations

import codecs
import ctypes
import functools
import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fkp.errors import FkpError
from fkp.runs import keys
from fkp.runs.config import check, meant, said
from fkp.runs.overrides import expand_home, typed

EXTRAS = {
    "hydra/launcher/submitit": "slurm",
    "hydra/launcher/joblib": "sweep",
}  # where others' launchers come from

SIGNS = {
    "•": "*",
    "…": "...",
    "±": "+-",
    "×": "x",
    "→": "->",
    "–": "-",
    "—": "-",
    "’": "'",
    "°": " deg",
}
SIGNS |= {"━": "-", "╸": "-", "╺": "-", "│": "|", "─": "-"}  # of tables and progress bars


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
        conf = next(
            (above / "conf" for above in script.parents if (above / "conf").is_dir()),
            script.parent / "conf",
        )
        root = OmegaConf.load(conf / f"{name}.yaml")
        assert isinstance(root, DictConfig)
        groups = keys.groups_of(root)
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
                    expand_home(cfg)
                    check(cfg, root)
                    with _folder(cfg):
                        return body(cfg)
            except FkpError as error:
                if (
                    hydra_config.output_subdir is not None
                ):  # else it is the folder of another process
                    remove_if_empty(
                        Path(hydra_config.runtime.output_dir), hydra_config.output_subdir
                    )
                if hydra_config.mode == RunMode.MULTIRUN or full_error == "1":
                    raise  # the launcher decides what a failed job means; who asks for tracebacks gets them
                raise SystemExit(_say(error)) from None

        @functools.wraps(body)
        def entry() -> float | None:
            import hydra

            tune_threads_and_malloc()
            try:
                _no_options(sys.argv[1:], list(root))
                sys.argv[1:] = typed(arguments(typed(sys.argv[1:], groups)), groups)
            except FkpError as error:
                raise SystemExit(_say(error)) from None
            nonlocal full_error, begun
            full_error, begun = os.environ.get("HYDRA_FULL_ERROR"), False
            run = hydra.main(version_base="1.3", config_path=str(conf), config_name=name)(task)
            try:
                with _full_error(
                    "1"
                ):  # else Hydra would print its own error and exit with 1; so it hands it on
                    return run()
            except KeyboardInterrupt:
                raise SystemExit(130) from None
            except BrokenPipeError:  # `train.py --help | head`: the reader has had enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise SystemExit(0) from None
            except Exception as error:
                if full_error == "1" or not (
                    isinstance(error, FkpError) or _is_about_config(error, begun)
                ):
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


@contextmanager
def _folder(cfg: DictConfig) -> Iterator[None]:
    """Make the folder of a run before the work begins; remove it again if a mistake ends the run and it is empty."""
    if "run_dir" not in cfg:
        yield
        return
    folder = Path(cfg.run_dir)
    made = not folder.exists()
    make_folder("run_dir", folder)
    try:
        yield
    except FkpError:
        if made and all(path.suffix == ".lock" for path in folder.iterdir()):
            shutil.rmtree(folder)
        raise


def make_folder(key: str, folder: Path) -> None:
    """Make a folder to write into.

    Args:
        key: that named it.

    Raises:
        FkpError: it is a file, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FkpError(
            f"{key}: {folder} cannot be written ({error.strerror}); name another folder"
        ) from None


def _no_options(arguments: Sequence[str], own: Sequence[str]) -> None:
    """Refuse `--key value`, which is `key=value` here."""
    for argument in arguments:
        key, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("--") and key.partition(".")[0] in own:
            raise FkpError(f"{argument}: write {key}={value or '…'}, without dashes and blanks")


def tune_threads_and_malloc() -> None:
    """Set what the C libraries below torch do with threads and memory, and what stands for signs that the console
    lacks; call it before torch is imported.

    Threads that wait for each other are to sleep soon: as they come they spin, and on cores that others use too a step
    then takes up to five times as long. And freed memory is to be kept: glibc gives large blocks back to the system and
    gets them anew, page by page, in every step; without that, a step of `two_conv` takes a fifth less.
    """
    codecs.register_error("fkp.plainer", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="fkp.plainer")
    logging.getLogger("matplotlib").setLevel(
        logging.ERROR
    )  # it tells of its fonts, at the first import
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "50000")
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
        if mallopt is not None:
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD, bytes
            mallopt(-3, 2**30)  # M_MMAP_THRESHOLD


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """Replace signs that an encoding lacks, for `codecs.register_error`."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(SIGNS.get(sign) or ascii(sign)[1:-1] for sign in lacking), error.end


def _say(message: object) -> int:
    print(message, file=sys.stderr)
    return 2


def remove_if_empty(run_dir: Path, subdir: str = "config") -> None:
    """Remove the folder that Hydra has made for a run that never began, if nothing else is in it."""
    if run_dir.is_dir() and all(
        path.name == subdir or path.suffix in (".log", ".lock") for path in run_dir.iterdir()
    ):
        shutil.rmtree(run_dir)
        for parent in list(run_dir.parents)[:2]:
            if parent.name != "outputs" and not any(parent.iterdir()):
                parent.rmdir()


def _is_about_config(error: Exception, begun: bool) -> bool:
    """Whether it comes of composing the configuration; Hydra is loose with its kinds of error until a run has begun."""
    from hydra.errors import HydraException

    loose = (OmegaConfBaseException, yaml.YAMLError, ValueError, OSError)
    return isinstance(error, (HydraException, MissingMandatoryValue)) or (
        not begun and isinstance(error, loose)
    )


def _reworded(error: Exception, conf: Path, name: str) -> str:
    """Hydra's error about an override, in a few words and with a suggestion."""
    from hydra.errors import MissingConfigException, OverrideParseException

    text = said(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}; name another folder by hydra.run.dir=…"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}:{mark.line + 1}:{mark.column + 1}: {error.problem}"
    if isinstance(error, OverrideParseException):
        given = str(error.override)
        if given in list(OmegaConf.load(conf / f"{name}.yaml")):
            return f"{given}: has no value; write {given}=…, without blanks"
        takes_a_picture = "image" in list(OmegaConf.load(conf / f"{name}.yaml"))
        if takes_a_picture and "=" not in given:
            return f"{given}: not key=value; did you mean image={given}?"
        return f"{given}: not key=value; quote a value with special characters: 'key=\"…\"'"
    missing = str(error.missing_cfg_file) if isinstance(error, MissingConfigException) else ""
    if extra := next(
        (EXTRAS[launcher] for launcher in EXTRAS if missing.startswith(launcher)), None
    ):
        return f'hydra/launcher: this one is not installed; pip install -e ".[{extra}]"'
    if (
        isinstance(error, MissingConfigException)
        and error.missing_cfg_file
        and error.options is not None
    ):
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        there = f"there is {', '.join(error.options)}{meant(option, error.options)}"
        return f"{group}={option}: no such option; {there}; one of your own would be conf/{group}/{option}.yaml"
    if text.startswith("Could not override") and text.count("'") >= 2:
        key = text.split("'")[1]
        return f"{key}: no such key{keys.suggestion(key, *_defaults(conf, name))}"
    if text.startswith("Config group override"):
        return f"{text}; in a sweep, each value of a group is one of its options"
    if isinstance(error.__cause__, OmegaConfBaseException):
        text = f"{text}\n{said(error.__cause__)}"
    where = getattr(error, "full_key", None)  # of OmegaConf's
    return f"{where}: {text}" if where else text or repr(error)


def _defaults(conf: Path, name: str) -> tuple[DictConfig, list[str]]:
    """The default configuration, and the groups that there are."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose(name), [folder.name for folder in conf.iterdir() if folder.is_dir()]
