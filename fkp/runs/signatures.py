"""The signature of anything importable, read from its source: nothing is imported, so nobody waits for torch."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
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
    """What a class or function takes by name, and which of that by place; `open` and `any_positional` if it has
    **kwargs and *args."""

    parameters: dict[str, Parameter]
    open: bool
    positional: list[str]
    any_positional: bool


UNCLEAR = (
    ast.Pass()
)  # stands for what is bound in one of several branches: which one, only running it tells
WRITES_NAMES = re.compile(r"(?<!\bin )\b(globals|vars|locals|exec|setattr)\(|\bsys\.modules\b")
DATACLASS = re.compile(r"(\w+\.)*dataclass\b(?!.*\binit=False)")
NO_BASES = ("object", "Protocol", "Generic", "ABC")  # they have no constructor of their own
# Decorators after which a function or class takes what it took before; of others that is not known.
KEEPING = {
    "classmethod",
    "staticmethod",
    "cache",
    "lru_cache",
    "contextmanager",
    "no_grad",
    "abstractmethod",
}
KEEPING |= {"final", "dataclass", "runtime_checkable", "total_ordering"}


def of(target: str) -> Signature | None:
    """The signature of `package.module.Name` (or `.Name.method`); None where the source cannot tell.

    Raises:
        Unknown: no such module or name.
    """
    found = _resolve(target.split("."))
    if found is None:
        return None
    module, node, owner = found
    if isinstance(node, ast.ClassDef):
        return _of_class(module, node)
    if isinstance(node, ast.FunctionDef) and _decorators(node) <= KEEPING:
        return _of_function(
            node, skip=1 if owner is not None and "classmethod" in _decorators(node) else 0
        )
    return None


@dataclass(frozen=True, eq=False)
class _Module:
    name: str
    file: Path
    names: dict[str, ast.AST]
    stars: list[str]

    @property
    def package(self) -> str:
        return self.name if self.file.name == "__init__.py" else self.name.rpartition(".")[0]

    def may_have(self, name: str) -> bool:
        """Whether it may have a name that its statements do not bind: it writes names itself, or is a package with a
        file or folder, Python's or compiled, of that name."""
        parts = self.file.parent.iterdir() if self.file.name == "__init__.py" else []
        source = self.file.read_text(encoding="utf-8", errors="replace")
        return bool(WRITES_NAMES.search(source)) or name in (
            part.name.partition(".")[0] for part in parts
        )


_Found = (
    tuple[_Module, ast.AST, ast.ClassDef | None] | None
)  # a definition, and the class that it is in
_Lineage = list[
    tuple[_Module, ast.ClassDef] | None
]  # a class and those it inherits from; None for an unknown one


@cache
def _module(name: str) -> _Module | None:
    """Parse a module found by its path; None if it has no Python source."""
    top, *rest = name.split(".")
    spec = _spec(top)
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    file = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for part in rest:
        options = [
            path
            for folder in folders
            for path in (folder / part / "__init__.py", folder / f"{part}.py")
        ]
        file = next((path for path in options if path.is_file()), None)
        # Without a file it may be a namespace package: folders alone.
        folders = (
            [file.parent]
            if file and file.stem == "__init__"
            else []
            if file
            else [f / part for f in folders]
        )
    if file is None:
        return None
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return None  # importing it says what is wrong with it
    module = _Module(name, file, {}, [])
    _collect(tree.body, module.names, module.stars, module.package, sure=True)
    return module


def _spec(top: str) -> ModuleSpec | None:
    if top in sys.modules:
        return sys.modules[top].__spec__
    return importlib.util.find_spec(top) if top.isidentifier() else None


def _collect(
    body: list[ast.stmt], names: dict[str, ast.AST], stars: list[str], package: str, sure: bool
) -> None:
    """Add the names that statements bind to their definitions; the last one counts, if it is sure to be executed."""

    def bind(name: str, node: ast.AST) -> None:
        names[name] = node if sure or name not in names else UNCLEAR

    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            bind(node.name, node)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                if alias.name == "*" and isinstance(node, ast.ImportFrom):
                    stars.append(_absolute(node, package))
                else:
                    bind(alias.asname or alias.name.split(".")[0], node)
        elif isinstance(node, ast.AnnAssign) and node.value is None:
            continue
        else:
            for part in ast.walk(node):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    bind(part.id, node)
            for block in ("body", "orelse", "finalbody", "handlers", "cases"):
                for inner in getattr(node, block, []):
                    inside = [inner] if isinstance(inner, ast.stmt) else inner.body
                    _collect(inside, names, stars, package, sure=False)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join(
        [*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])]
    )


def _resolve(path: list[str]) -> _Found:
    """Where a dotted name is defined; None if the source cannot tell."""
    for cut in range(len(path) - 1, 0, -1):
        module = _module(".".join(path[:cut]))
        if module is not None:
            return _find(module, path[cut:])
    if path[0] not in sys.modules and _spec(path[0]) is None:
        raise Unknown("this Python", path[0], [])
    return None


def _find(
    module: _Module, path: list[str], seen: frozenset[tuple[str, str]] = frozenset()
) -> _Found:
    """Where a dotted name, as a module sees it, is defined; None if the source cannot tell."""
    name, *rest = path
    if (module.name, name) in seen:
        return None  # modules that import from each other
    seen |= {(module.name, name)}
    node = module.names.get(name)
    if node is None:
        return _find_in_stars(module, path, seen)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        alias = next(a for a in node.names if (a.asname or a.name.split(".")[0]) == name)
        if isinstance(node, ast.Import):
            origin = alias.name if alias.asname else name
        else:
            origin, rest = _absolute(node, module.package), [alias.name, *rest]
            if len(rest) > 1 and _module(f"{origin}.{alias.name}") is not None:
                origin, rest = f"{origin}.{alias.name}", rest[1:]
        other = _module(origin)
        return _find(other, rest, seen) if other is not None and rest else None
    if isinstance(node, ast.ClassDef) and rest:
        return _find_in_class(module, node, rest)
    return (module, node, None) if not rest else None


def _find_in_stars(module: _Module, path: list[str], seen: frozenset[tuple[str, str]]) -> _Found:
    lazy = "__getattr__" in module.names and len(path) == 1
    known = {*module.names, *(file.stem for file in module.file.parent.glob("*.py"))}
    closed = not lazy and not module.may_have(path[0])
    for star in reversed(module.stars):
        other = _module(star)
        if other is None:
            closed = False
            continue
        try:
            return _find(other, path, seen)
        except Unknown as unknown:
            known |= set(unknown.args[2])
    if not closed:
        return None
    raise Unknown(module.name, path[0], sorted(name for name in known if not name.startswith("_")))


def _find_in_class(module: _Module, node: ast.ClassDef, path: list[str]) -> _Found:
    known: set[str] = set()
    for part in _lineage(module, node):
        if part is None:
            return None
        names = _class_names(part[1])
        if path[0] in names:
            return (part[0], names[path[0]], part[1]) if len(path) == 1 else None
        known |= names.keys()
    raise Unknown(
        f"{module.name}.{node.name}",
        path[0],
        sorted(name for name in known if not name.startswith("_")),
    )


def _class_names(node: ast.ClassDef) -> dict[str, ast.AST]:
    names: dict[str, ast.AST] = {}
    _collect(node.body, names, [], "", sure=True)
    return names


def _lineage(module: _Module, node: ast.ClassDef) -> _Lineage:
    """A class and those it inherits from, in the order in which they are asked for a name."""
    line: _Lineage = [(module, node)]
    for base in node.bases:
        path = ast.unparse(base).partition("[")[0].split(".")
        if path[-1] in NO_BASES:
            continue
        try:
            found = _find(module, path)
        except Unknown:
            found = None
        if found is None or not isinstance(found[1], ast.ClassDef) or found[1] is node:
            line.append(None)
        else:
            line += _lineage(found[0], found[1])
    # Of one that is reached on several ways, the last place counts: all that inherit from it come before.
    return [part for i, part in enumerate(line) if part is None or part not in line[i + 1 :]]


def _of_class(module: _Module, node: ast.ClassDef) -> Signature | None:
    line = _lineage(module, node)
    for i, part in enumerate(line):
        if part is None or any(
            k.arg == "metaclass" and "ABC" not in ast.unparse(k.value) for k in part[1].keywords
        ):
            return None  # a metaclass may take other arguments than the constructor
        names = _class_names(part[1])
        init = names.get("__init__", names.get("__new__"))
        if isinstance(
            init, ast.FunctionDef
        ):  # one that is decorated takes, by custom, what it took before
            return _of_function(init, skip=1)
        if init is None and any(DATACLASS.match(ast.unparse(d)) for d in part[1].decorator_list):
            return _of_dataclass(line[i:])
        if init is not None or not _decorators(part[1]) <= KEEPING:
            return None
    return Signature({}, False, [], False)


def _of_dataclass(line: _Lineage) -> Signature | None:
    """The `__init__` that a dataclass generates from its own fields and those it inherits."""
    parameters: dict[str, Parameter] = {}
    for part in reversed(line):
        if part is None or re.search("kw_only|KW_ONLY|InitVar", ast.unparse(part[1])):
            return None
        for node in part[1].body if "dataclass" in _decorators(part[1]) else []:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            required, options = node.value is None, set[str]()
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func).endswith("field"):
                options = {f"{k.arg}={ast.unparse(k.value)}" for k in node.value.keywords}
                required = not any(option.startswith("default") for option in options)
            if "ClassVar" not in ast.unparse(node.annotation) and "init=False" not in options:
                parameters[node.target.id] = Parameter(node.target.id, node.annotation, required)
    return Signature(parameters, False, list(parameters), False)


def _of_function(node: ast.FunctionDef, skip: int) -> Signature:
    arguments = node.args
    placed = [*arguments.posonlyargs, *arguments.args]
    defaults = [
        *[None] * (len(placed) - len(arguments.defaults)),
        *arguments.defaults,
        *arguments.kw_defaults,
    ]
    parameters = {
        argument.arg: Parameter(
            argument.arg, _optional(argument.annotation, default), default is None
        )
        for argument, default in list(zip([*placed, *arguments.kwonlyargs], defaults, strict=True))[
            skip:
        ]
    }
    positional = [argument.arg for argument in placed[skip:]]
    return Signature(
        parameters, arguments.kwarg is not None, positional, arguments.vararg is not None
    )


def _optional(annotation: ast.expr | None, default: ast.expr | None) -> ast.expr | None:
    """`x: int = None` takes None."""
    if annotation is not None and isinstance(default, ast.Constant) and default.value is None:
        return ast.BinOp(annotation, ast.BitOr(), default)
    return annotation


def _decorators(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    return {ast.unparse(d).partition("(")[0].rpartition(".")[2] for d in node.decorator_list}
