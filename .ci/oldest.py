"""Print pip constraints that hold each package at the lower bound that pyproject.toml gives it."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(
    Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8")
)["project"]
for needed in sum(project["optional-dependencies"].values(), project["dependencies"]):
    if bound := re.match(r"([\w.-]+)>=([\w.]+)", needed):
        print("==".join(bound.groups()))
