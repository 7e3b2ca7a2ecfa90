"""Find the definition of a dotted name in source, without importing anything."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

# Stands for a name that several branches bind: only running them tells which.
UNCLEAR = ast.Pass()
# Source that may bind names other than by its statements.
WRITES_NAMES = re.compile(r"(?<!\bin )\b(globals|vars|locals|exec|setattr)\(|\bsys\.modules\b")
# Base classes without a constructor of their own.
NO_BASES = ("object", "Protocol", "Generic", "ABC")
# The blocks of statements that a statement can contain.
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


class Unknown(Exception):
    """There is no such module or name.

    `args` are where it was looked for, the name, and the names that exist there.
    """


@dataclass(frozen=True, eq=False)
class Module:
    """A parsed module.

    Args:
        name: dotted.
        file: of its source.
        names: that its statements bind, with their definitions.
        stars: modules from which it imports `*`.
    """

    name: str
    file: Path
    names: dict[str, ast.AST]
    stars: list[str]

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        return self.name if self.file.name == "__init__.py" else self.name.rpartition(".")[0]

    def may_have(self, name: str) -> bool:
        """Return whether the module may have a name that its statements do not bind.

        It may if it writes names itself, or is a package with a module, in Python or compiled, of
        that name.
        """
        source = self.file.read_text(encoding="utf-8", errors="replace")
        files = self.file.parent.iterdir() if self.file.name == "__init__.py" else []
        return bool(WRITES_NAMES.search(source)) or any(
            file.name.partition(".")[0] == name for file in files
        )


# A definition: its module, its node, and the class around it, if there is one.
Definition = tuple[Module, ast.AST, ast.ClassDef | None]
# A class and those it inherits from; None for one whose source is not found.
Lineage = list[tuple[Module, ast.ClassDef] | None]
# Modules and names that a search has visited.
Seen = frozenset[tuple[str, str]]


@cache
def _module(name: str) -> Module | None:
    """Parse a module, found by its path; None if it has no Python source."""
    file = _source(name)
    if file is None:
        return None
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        # Importing the module reports what is wrong with it.
        return None
    module = Module(name, file, {}, [])
    _collect(tree.body, module, certain=True)
    return module


def _source(name: str) -> Path | None:
    """Find the source file of a module."""
    top, *rest = name.split(".")
    spec = _spec(top)
    if spec is None:
        return None

    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    file = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for word in rest:
        options = [
            path
            for folder in folders
            for path in (folder / word / "__init__.py", folder / f"{word}.py")
        ]
        file = next((path for path in options if path.is_file()), None)
        if file is None:
            # It may be a namespace package: folders without a file.
            folders = [folder / word for folder in folders]
        else:
            folders = [file.parent] if file.stem == "__init__" else []
    return file


def _spec(top: str) -> ModuleSpec | None:
    if top in sys.modules:
        return sys.modules[top].__spec__
    return importlib.util.find_spec(top) if top.isidentifier() else None


def _collect(body: list[ast.stmt], module: Module, certain: bool) -> None:
    """Add to a module the names that statements bind, with their definitions.

    Args:
        body: the statements.
        module: its `names` and `stars` are extended.
        certain: whether the statements are certain to be executed; then the last binding counts.
    """
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            _bind(module, node.name, node, certain)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            _collect_import(node, module, certain)
        elif not isinstance(node, ast.AnnAssign) or node.value is not None:
            _collect_other(node, module, certain)


def _bind(module: Module, name: str, node: ast.AST, certain: bool) -> None:
    module.names[name] = node if certain or name not in module.names else UNCLEAR


def _collect_import(node: ast.Import | ast.ImportFrom, module: Module, certain: bool) -> None:
    for alias in node.names:
        if alias.name == "*" and isinstance(node, ast.ImportFrom):
            module.stars.append(_absolute(node, module.package))
        else:
            _bind(module, alias.asname or alias.name.split(".")[0], node, certain)


def _collect_other(node: ast.stmt, module: Module, certain: bool) -> None:
    """Add the names that an assignment, loop, branch or the like binds."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            _bind(module, inner.id, node, certain)

    # Statements in a block may not be executed.
    for block in BLOCKS:
        for inner in getattr(node, block, []):
            statements = [inner] if isinstance(inner, ast.stmt) else inner.body
            _collect(statements, module, certain=False)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """Return the absolute name of the module that `from … import` names."""
    if not node.level:
        return node.module or ""
    words = package.split(".")
    below = [node.module] if node.module else []
    return ".".join([*words[: len(words) - node.level + 1], *below])


def find(target: str) -> Definition | None:
    """Find where a dotted name is defined; None if the source cannot tell.

    Raises:
        Unknown: no such module or name.
    """
    path = target.split(".")
    for cut in range(len(path) - 1, 0, -1):
        module = _module(".".join(path[:cut]))
        if module is not None:
            return _find(module, path[cut:])
    if path[0] not in sys.modules and _spec(path[0]) is None:
        raise Unknown("this Python", path[0], [])
    return None


def _find(module: Module, path: list[str], seen: Seen = frozenset()) -> Definition | None:
    """Find where a dotted name, as a module sees it, is defined."""
    name, *rest = path
    # Modules may import from each other.
    if (module.name, name) in seen:
        return None
    seen |= {(module.name, name)}

    node = module.names.get(name)
    if node is None:
        return _find_in_stars(module, path, seen)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return _find_import(module, node, path, seen)
    if isinstance(node, ast.ClassDef) and rest:
        return _find_in_class(module, node, rest)
    return (module, node, None) if not rest else None


def _find_import(
    module: Module, node: ast.Import | ast.ImportFrom, path: list[str], seen: Seen
) -> Definition | None:
    """Follow an import to the module that defines the name."""
    name, *rest = path
    alias = next(a for a in node.names if (a.asname or a.name.split(".")[0]) == name)
    if isinstance(node, ast.Import):
        origin = alias.name if alias.asname else name
    else:
        origin, rest = _absolute(node, module.package), [alias.name, *rest]
        # The imported name may itself be a module.
        if len(rest) > 1 and _module(f"{origin}.{alias.name}") is not None:
            origin, rest = f"{origin}.{alias.name}", rest[1:]
    other = _module(origin)
    return _find(other, rest, seen) if other is not None and rest else None


def _find_in_stars(module: Module, path: list[str], seen: Seen) -> Definition | None:
    """Find a name in the modules from which a module imports `*`.

    Raises:
        Unknown: none of them has it, and the module cannot have it in another way.
    """
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
    raise Unknown(module.name, path[0], _public(known))


def _find_in_class(module: Module, node: ast.ClassDef, path: list[str]) -> Definition | None:
    """Find a name in a class, or in those it inherits from.

    Raises:
        Unknown: none of them has it.
    """
    known: set[str] = set()
    for ancestor in lineage(module, node):
        if ancestor is None:
            return None
        names = class_names(ancestor[1])
        if path[0] in names:
            return (ancestor[0], names[path[0]], ancestor[1]) if len(path) == 1 else None
        known |= names.keys()
    raise Unknown(f"{module.name}.{node.name}", path[0], _public(known))


def _public(names: set[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("_"))


def class_names(node: ast.ClassDef) -> dict[str, ast.AST]:
    """Return the names that the body of a class binds, with their definitions."""
    body = Module("", Path(), {}, [])
    _collect(node.body, body, certain=True)
    return body.names


def lineage(module: Module, node: ast.ClassDef) -> Lineage:
    """Return a class and those it inherits from, in the order of method resolution."""
    line: Lineage = [(module, node)]
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
            line += lineage(found[0], found[1])
    # A class that is reached in several ways comes after all that inherit from it.
    return [one for i, one in enumerate(line) if one is None or one not in line[i + 1 :]]
