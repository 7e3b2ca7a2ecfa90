"""The signature of anything importable, read from its source: nothing is imported, so nobody waits for torch."""

from __future__ import annotations

import ast
import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path


class Unknown(Exception):
    """There is no such module or name; `args` are the part that was looked in, the name, and what there is."""


@dataclass(frozen=True)
class Parameter:
    """One argument: its annotation as source, and whether it must be given."""

    name: str
    annotation: ast.expr | None
    required: bool


@dataclass(frozen=True)
class Signature:
    """What a class or function takes by name; `open` if it takes any name (**kwargs)."""

    parameters: dict[str, Parameter]
    open: bool
    positional: list[str]


def of(target: str) -> Signature | None:
    """The signature of `package.module.Name` (or `.Name.method`); None where the source cannot tell.

    Raises:
        Unknown: no such module or name.
    """
    found = _resolve(target)
    if found is None:
        return None
    module, node, owner = found
    if isinstance(node, ast.ClassDef):
        return _of_class(module, node)
    if isinstance(node, ast.FunctionDef):
        bound = owner is not None and "staticmethod" not in _decorators(node)
        return _of_function(node, skip=1 if bound else 0)
    return None


@dataclass(frozen=True)
class _Module:
    name: str
    file: Path
    names: dict[str, ast.AST]
    stars: list[str]

    @property
    def package(self) -> str:
        return self.name if self.file.name == "__init__.py" else self.name.rpartition(".")[0]


@cache
def _module(name: str) -> _Module | None:
    """Parse a module found by its path; None if it has no Python source."""
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top) if top not in sys.modules else sys.modules[top].__spec__
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    file = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for part in rest:
        for folder in folders:
            if (folder / part / "__init__.py").is_file():
                file, folders = folder / part / "__init__.py", [folder / part]
                break
            if (folder / f"{part}.py").is_file():
                file, folders = folder / f"{part}.py", []
                break
        else:
            return None
    if file is None:
        return None
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names: dict[str, ast.AST] = {}
    stars: list[str] = []
    _collect(tree.body, names, stars, name if file.name == "__init__.py" else name.rpartition(".")[0])
    return _Module(name, file, names, stars)


def _collect(body: list[ast.stmt], names: dict[str, ast.AST], stars: list[str], package: str) -> None:
    """Names that a module's statements bind, those under `if` and `try` included."""
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names[node.name] = node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                if alias.name == "*" and isinstance(node, ast.ImportFrom):
                    stars.append(_absolute(node, package))
                else:
                    names.setdefault(alias.asname or alias.name.split(".")[0], node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    names.setdefault(target.id, node)
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            for part in ("body", "orelse", "finalbody"):
                _collect(getattr(node, part, []), names, stars, package)
            for handler in getattr(node, "handlers", []):
                _collect(handler.body, names, stars, package)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def _resolve(target: str) -> tuple[_Module, ast.AST, ast.ClassDef | None] | None:
    """Where a dotted name is defined; None if its source cannot tell."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = _module(".".join(parts[:cut]))
        if module is not None:
            return _find(module, parts[cut:], target)
    top = _module(parts[0])
    if importlib.util.find_spec(parts[0]) is None:
        raise Unknown(parts[0], parts[0], [])
    if top is not None and len(parts) > 1:
        raise Unknown(parts[0], parts[1], sorted(top.names))
    return None


def _find(module: _Module, path: list[str], target: str) -> tuple[_Module, ast.AST, ast.ClassDef | None] | None:
    name, *rest = path
    node = module.names.get(name)
    if node is None:
        for star in module.stars:
            other = _module(star)
            if other is not None and name in other.names:
                return _find(other, path, target)
        if not rest and (module.stars or "__getattr__" in module.names):
            return None
        known = sorted([*module.names, *(f.stem for f in module.file.parent.glob("*.py"))])
        raise Unknown(module.name, name, [n for n in known if not n.startswith("_")])
    if isinstance(node, ast.ImportFrom):
        alias = next(a for a in node.names if (a.asname or a.name) == name)
        origin = _absolute(node, module.package)
        submodule = _module(f"{origin}.{alias.name}")
        if submodule is not None and rest:
            return _find(submodule, rest, target)
        other = _module(origin)
        return _find(other, [alias.name, *rest], target) if other is not None and other is not module else None
    if isinstance(node, ast.Import):
        alias = next(a for a in node.names if (a.asname or a.name.split(".")[0]) == name)
        other = _module(alias.name if alias.asname else name)
        return _find(other, rest, target) if other is not None and rest else None
    if isinstance(node, ast.ClassDef) and rest:
        methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
        if rest[0] not in methods:
            raise Unknown(f"{module.name}.{name}", rest[0], sorted(methods))
        return module, methods[rest[0]], node
    return (module, node, None) if not rest else None


def _of_class(module: _Module, node: ast.ClassDef) -> Signature | None:
    if "dataclass" in _decorators(node):
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
        parameters = {
            f.target.id: Parameter(f.target.id, f.annotation, f.value is None)
            for f in fields
            if isinstance(f.target, ast.Name)
        }
        return Signature(parameters, False, list(parameters))
    for name in ("__init__", "__new__"):
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == name:
                return _of_function(part, skip=1)
    for base in node.bases:
        dotted = ast.unparse(base).partition("[")[0]
        if dotted in ("object", "Protocol", "Generic", "ABC"):
            continue
        try:
            found = _find(module, dotted.split("."), dotted)
        except Unknown:
            found = None
        if found is None or not isinstance(found[1], ast.ClassDef):
            return None
        return _of_class(found[0], found[1])
    return Signature({}, False, [])


def _of_function(node: ast.FunctionDef, skip: int) -> Signature:
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    needed = len(plain) - len(arguments.defaults)
    parameters = {a.arg: Parameter(a.arg, a.annotation, i < needed) for i, a in enumerate(plain) if i >= skip}
    positional = list(parameters)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parameters[argument.arg] = Parameter(argument.arg, argument.annotation, default is None)
    return Signature(parameters, arguments.kwarg is not None, positional)


def _decorators(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    return {ast.unparse(d).partition("(")[0].rpartition(".")[2] for d in node.decorator_list}
