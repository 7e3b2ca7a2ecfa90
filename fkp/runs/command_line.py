"""Make a function of a configuration the entry of a script; a user's mistake is one message."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fkp.errors import FkpError
from fkp.runs import hydra_errors, keys, renamed
from fkp.runs.config import check
from fkp.runs.overrides import expand_home, typed
from fkp.runs.process import tune_threads_and_malloc

Body = Callable[[DictConfig], float | None]


def main(
    name: str,
    arguments: Callable[[list[str]], list[str]] = list,
    job: Callable[[Path], float] | None = None,
) -> Callable[[Body], Callable[[], float | None]]:
    """Make a function of a configuration the entry of a script, as `hydra.main` does.

    The configuration is checked first. A user's mistake, there or in the function, is one message
    on stderr and exit code 2. Any other error keeps its traceback; with HYDRA_FULL_ERROR=1, a
    user's mistake keeps it, too.

    Args:
        name: of the root file in conf/, which lies beside the function's file or above it.
        arguments: changes the command line before Hydra reads it.
        job: runs instead of the function for each job of a sweep; takes the path of the script.
    """

    def decorate(body: Body) -> Callable[[], float | None]:
        script = _Script(name, body, arguments, job)

        @functools.wraps(body)
        def entry() -> float | None:
            return script.run()

        return entry

    return decorate


class _Script:
    """Run a function with the configuration that its command line composes.

    Args:
        name, body, arguments, job: as in `main`.
    """

    def __init__(
        self,
        name: str,
        body: Body,
        arguments: Callable[[list[str]], list[str]],
        job: Callable[[Path], float] | None,
    ):
        self.name, self.body, self.arguments, self.job = name, body, arguments, job
        file = Path(str(sys.modules[body.__module__].__file__)).resolve()
        self.conf = conf_folder(file)
        root = OmegaConf.load(self.conf / f"{name}.yaml")
        assert isinstance(root, DictConfig)
        self.root, self.groups = root, keys.groups_of(root)

        self.file = file  # of the script that was started
        self.full_error: str | None = None  # HYDRA_FULL_ERROR as the user set it
        self.begun = False  # whether Hydra has composed the configuration

    def run(self) -> float | None:
        """Read the command line and run the function, or exit with 2 and a message."""
        # Until the function begins: imports and the composition make no garbage, but the collector
        # would search what they make again and again.
        gc.disable()
        try:
            return self._run()
        finally:
            gc.enable()

    def _run(self) -> float | None:
        import hydra

        tune_threads_and_malloc()
        self.file, self.begun = Path(sys.argv[0]).resolve(), False
        try:
            self._read_command_line()
        except FkpError as error:
            raise SystemExit(_print_error(error)) from None

        # Hydra takes the script's name from the function.
        @functools.wraps(self.body)
        def task(cfg: DictConfig) -> float | None:
            return self._task(cfg)

        self.full_error = os.environ.get("HYDRA_FULL_ERROR")
        run = hydra.main(version_base="1.3", config_path=str(self.conf), config_name=self.name)(
            task
        )
        try:
            # Without it, Hydra would print its own error and exit with 1; with it, Hydra raises.
            with _full_error("1"), self._composed_once():
                return run()
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except BrokenPipeError:
            # `train.py --help | head`: the reader has closed the pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        except Exception as error:
            self._exit(error)
            raise

    @contextmanager
    def _composed_once(self) -> Iterator[None]:
        """Let Hydra compose the configuration once, not twice.

        It composes it a first time to read `hydra.mode`, which makes a single run a sweep. Where
        nothing can have set that key, this takes a tenth of the time of a prediction for nothing.
        """
        from hydra._internal.hydra import Hydra

        given = any(one.startswith("-") or "hydra" in one for one in sys.argv[1:])
        if given or "experiment" in self.groups or not hasattr(Hydra, "get_mode"):
            yield
            return

        get_mode = Hydra.get_mode
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
        try:
            yield
        finally:
            Hydra.get_mode = get_mode  # type: ignore[method-assign]

    def _read_command_line(self) -> None:
        """Check sys.argv, and replace it by what Hydra is to read.

        Raises:
            FkpError: `--key value`, or a key of an earlier release.
        """
        # `resume` is a short form of keys in `start`.
        _refuse_options(sys.argv[1:], [*self.root, *(["resume"] if "start" in self.root else [])])
        known = [*map(str, self.root), *self.groups]
        if faults := list(dict.fromkeys(renamed.faults_of_arguments(sys.argv[1:], known))):
            raise FkpError("\n".join(faults))
        sys.argv[1:] = typed(self.arguments(typed(sys.argv[1:], self.groups)), self.groups)

    def _task(self, cfg: DictConfig) -> float | None:
        """Check a composed configuration and run the function, or the job of a sweep."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        self.begun, hydra_config = True, HydraConfig.get()
        sweeping = hydra_config.mode == RunMode.MULTIRUN
        try:
            with _full_error(self.full_error):
                if self.job and sweeping:
                    return self.job(self.file)
                expand_home(cfg)
                check(cfg, self.root)
                _collect_new_garbage()
                with _run_folder(cfg):
                    return self.body(cfg)
        except FkpError as error:
            # Without a subfolder of its own, the folder belongs to another process.
            if hydra_config.output_subdir is not None:
                folder = Path(hydra_config.runtime.output_dir)
                remove_if_empty(folder, hydra_config.output_subdir)
            # In a sweep, the launcher decides what a failed job means.
            if sweeping or self.full_error == "1":
                raise
            raise SystemExit(_print_error(error)) from None

    def _exit(self, error: Exception) -> None:
        """Exit with 2 and a message if an error is the user's mistake."""
        if self.full_error == "1":
            return
        if isinstance(error, FkpError):
            raise SystemExit(_print_error(error)) from None
        if hydra_errors.is_about_config(error, self.begun):
            message = hydra_errors.reworded(error, self.conf, self.name)
            raise SystemExit(_print_error(message)) from None


def conf_folder(file: Path) -> Path:
    """Find the folder conf/ that lies beside a file or above it."""
    folders = (above / "conf" for above in file.parents)
    return next((folder for folder in folders if folder.is_dir()), file.parent / "conf")


def _collect_new_garbage() -> None:
    """Let the collector search what is made from now on; what was imported stays."""
    # Once: garbage of an earlier job of this process would stay, too.
    if not gc.get_freeze_count():
        gc.freeze()
    gc.enable()


@contextmanager
def _full_error(value: str | None) -> Iterator[None]:
    """Set HYDRA_FULL_ERROR, or unset it for None, and restore it afterwards."""
    before = os.environ.pop("HYDRA_FULL_ERROR", None)
    if value is not None:
        os.environ["HYDRA_FULL_ERROR"] = value
    try:
        yield
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextmanager
def _run_folder(cfg: DictConfig) -> Iterator[None]:
    """Make the folder of a run; remove it again if a mistake ends the run and it is empty."""
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
        key: that named the folder.
        folder: made with its parents, if it does not exist.

    Raises:
        FkpError: it is a file, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FkpError(
            f"{key}: {folder} cannot be written ({error.strerror}); name another folder"
        ) from None


def remove_if_empty(run_dir: Path, subdir: str = "config") -> None:
    """Remove the folder that Hydra made for a run, and its empty parents, if the run never began.

    Args:
        run_dir: of the run.
        subdir: where Hydra writes its own files; these, logs and locks do not count.
    """
    if not run_dir.is_dir():
        return
    for path in run_dir.iterdir():
        if path.name != subdir and path.suffix not in (".log", ".lock"):
            return
    shutil.rmtree(run_dir)
    for parent in list(run_dir.parents)[:2]:
        if parent.name != "outputs" and not any(parent.iterdir()):
            parent.rmdir()


def _refuse_options(arguments: Sequence[str], own: Sequence[object]) -> None:
    """Refuse `--key value`, which is `key=value` here.

    Args:
        arguments: of the command line.
        own: the keys of the script's root file.

    Raises:
        FkpError: names the option.
    """
    for argument in arguments:
        key, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("--") and key.partition(".")[0] in own:
            raise FkpError(f"{argument}: write {key}={value or '…'}, without dashes and blanks")


def _print_error(message: object) -> int:
    """Print a message to stderr; return the exit code of a user's mistake."""
    print(message, file=sys.stderr)
    return 2
