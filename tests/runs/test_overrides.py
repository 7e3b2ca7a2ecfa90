"""Overrides keep their meaning in Hydra's grammar: paths, `~` as home, a comma as two jobs."""

import os
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fkp.runs import overrides

GROUPS = {"data": "synthetic", "logger": "tensorboard", "experiment": None}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set a home folder with a blank, a comma and brackets in its name."""
    folder = str(tmp_path / "ho me, (1)")
    monkeypatch.setenv("HOME", folder)
    monkeypatch.setenv("USERPROFILE", folder)
    return folder


def read(*arguments: str) -> Any:
    """Return the value that Hydra reads in the last argument; a list in a sweep."""
    override = OverridesParser.create().parse_override(overrides.typed(arguments, GROUPS)[-1])
    if override.is_sweep_override():
        return [str(value).strip('"') for value in override.sweep_string_iterator()]
    return override.value()


@pytest.mark.parametrize(
    "path",
    [
        "photo.jpg",
        "my photo (1).jpg",
        "a,b.jpg",
        "2024",
        "1e5",
        "0123",
        "café;&#.jpg",
        "[2024] faces",
        "{a}.jpg",
        "a=b.jpg",
        "it's.jpg",
        'a"b.jpg',
        "choice(a,b)",
        r"C:\photos\my photo",
        r"\\server\share (1)\\",
        "~unknown_user_name/x",
    ],
)
@pytest.mark.parametrize(
    "key",
    ["image", "data.root", "+data.test_images", "hydra.run.dir", "detector.model", "start.from"],
)
def test_a_path_is_kept_unchanged(key: str, path: str) -> None:
    assert read(f"{key}={path}") == path


@pytest.mark.parametrize(
    "key", ["image", "out", "data.markup", "hydra.run.dir", "+any.key.of.tomorrow"]
)
@pytest.mark.parametrize("typed", ["~/a b, c", '"~/a b, c"', "'~/a b, c'"])
def test_a_tilde_is_home_quoted_or_unquoted(home: str, key: str, typed: str) -> None:
    assert read(f"{key}={typed}") == f"{home}/a b, c"
    assert read(f"{key}=~") == home


def test_a_tilde_in_a_list_and_in_an_option_is_home(home: str) -> None:
    assert read("x=[~/a,~/b c, d]") == [f"{home}/a", f"{home}/b c", "d"]
    assert read("+x={a: ~/b, c: 3}") == {"a": f"{home}/b", "c": 3}
    assert overrides.typed(["--config-dir=~/conf", "~data.root"], GROUPS) == [
        f"--config-dir={home}/conf",
        "~data.root",
    ]


def test_a_tilde_in_a_file_is_home(home: str) -> None:
    cfg = OmegaConf.create(
        {
            "root": "~/a",
            "sources": [{"root": "~"}, 3],
            "other": "a~/b",
            "same": "${root}",
            "no": "???",
        }
    )
    overrides.expand_home(cfg)
    assert (
        cfg.root == cfg.same == f"{home}/a" and cfg.sources[0].root == home and cfg.other == "a~/b"
    )


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("data.root=A,B", ["A", "B"]),
        ("weights=null,shipped", ["null", "shipped"]),
        ("data.root=a (1), 2024", ["a (1)", "2024"]),
        ('data.root="A,B",C', ["A,B", "C"]),
        ("image=choice(a,b)", ["a", "b"]),
        ("seed=1,2", ["1", "2"]),
        ("shard=0..3", ["0", "1", "2", "3"]),
        ("seed=-1..0", ["-1", "0"]),
    ],
)
def test_with_m_a_comma_separates_jobs(typed: str, values: list[str]) -> None:
    assert read("-m", typed) == values
    assert overrides.typed([typed, "--multirun", "a=1"], GROUPS)[::2] == [
        "--multirun",
        "a=1",
    ]  # Hydra wants them apart


def test_two_dots_in_a_path_are_text() -> None:
    assert read("-m", "image=1..2") == read("seed=1..2") == "1..2"


def test_with_m_each_tilde_is_home(home: str) -> None:
    assert read("--multirun", "data.root=~/A,~/B") == [f"{home}/A", f"{home}/B"]


@pytest.mark.parametrize(
    "argument",
    [
        "ckpt=null",
        "resume=true",
        "seed=1,2",
        "model=a,b",
        "x=[1",
        "data.weights=[0.5, 2]",
        "image=???",
        "--help",
        "x",
    ],
)
def test_values_in_hydras_grammar_stay(argument: str) -> None:
    assert overrides.typed([argument], GROUPS) == [argument]


def test_null_removes_a_group() -> None:
    arguments = ["logger=null", "data=None", "experiment=null", "trainer.logger=false"]
    assert overrides.typed(arguments, GROUPS) == ["~logger", "~data", "trainer.logger=false"]


def test_typing_twice_changes_nothing() -> None:
    once = overrides.typed(["image=~/a (1)", 'out=C:\\x "y"\\', "x=[~/a]", "logger=null"], GROUPS)
    assert overrides.typed(once, GROUPS) == once
    assert overrides.text(once[0]) == os.path.expanduser("~/a (1)")
