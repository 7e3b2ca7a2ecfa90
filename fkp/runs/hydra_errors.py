"""Reword Hydra's and OmegaConf's errors about a command line or a configuration file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fkp.runs import keys, renamed
from fkp.runs.config import said
from fkp.runs.keys import meant

# The extra that installs a launcher of another package.
EXTRAS = {"hydra/launcher/submitit": "slurm", "hydra/launcher/joblib": "sweep"}


def is_about_config(error: Exception, begun: bool) -> bool:
    """Return whether an error was raised by composing the configuration.

    Args:
        error: that Hydra raised or passed on.
        begun: whether a run had begun; before, Hydra also raises ValueError and OSError.
    """
    from hydra.errors import HydraException

    loose = (OmegaConfBaseException, yaml.YAMLError, ValueError, OSError)
    return isinstance(error, (HydraException, MissingMandatoryValue)) or (
        not begun and isinstance(error, loose)
    )


def reworded(error: Exception, conf: Path, name: str) -> str:
    """Word Hydra's error in one message, with a suggestion where there is one.

    Args:
        error: about an override or a file.
        conf: the folder of configuration files.
        name: of the root file in it.
    """
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}; name another folder by hydra.run.dir=…"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}:{mark.line + 1}:{mark.column + 1}: {error.problem}"
    if isinstance(error, OverrideParseException):
        return _syntax(str(error.override), list(OmegaConf.load(conf / f"{name}.yaml")))
    message = None
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        message = _missing_option(str(error.missing_cfg_file), error.options)
    return message or _other(error, conf, name)


def _syntax(given: str, own: list[object]) -> str:
    """Word a syntax error in an override.

    Args:
        given: the override.
        own: the keys of the script's root file.
    """
    if given in own:
        return f"{given}: has no value; write {given}=…, without blanks"
    if "image" in own and "=" not in given:
        return f"{given}: not key=value; did you mean image={given}?"
    return f"{given}: not key=value; quote a value with special characters: 'key=\"…\"'"


def _missing_option(missing: str, options: Sequence[str] | None) -> str | None:
    """Word that a group has no such option.

    Args:
        missing: `group/option`.
        options: that the group has; None if there is no such group.
    """
    for launcher, extra in EXTRAS.items():
        if missing.startswith(launcher):
            return f'hydra/launcher: this one is not installed; pip install -e ".[{extra}]"'

    group, _, option = missing.rpartition("/")
    if new := renamed.OPTIONS.get((group, option)):
        return f"{group}={option}: renamed to {group}={new}"
    if options is None:
        return None
    known = f"there is {', '.join(options)}{meant(option, options)}"
    file = f"conf/{group}/{option}.yaml"
    return f"{group}={option}: no such option; {known}; one of your own would be {file}"


def _other(error: Exception, conf: Path, name: str) -> str:
    text = said(error)
    if text.startswith("Could not override") and text.count("'") >= 2:
        key = text.split("'")[1]
        return f"{key}: no such key{keys.suggestion(key, *_defaults(conf, name))}"
    if text.startswith("Config group override"):
        return f"{text}; in a sweep, each value of a group is one of its options"

    if isinstance(error.__cause__, OmegaConfBaseException):
        text = f"{text}\n{said(error.__cause__)}"
    # OmegaConf's errors name their key.
    where = getattr(error, "full_key", None)
    return f"{where}: {text}" if where else text or repr(error)


def _defaults(conf: Path, name: str) -> tuple[DictConfig, list[str]]:
    """Return the default configuration, and the names of the groups."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose(name), [folder.name for folder in conf.iterdir() if folder.is_dir()]
