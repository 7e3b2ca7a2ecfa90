"""Read the signature of anything importable from its source, without waiting for its import."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from fkp.runs import definitions
from fkp.runs.definitions import Lineage, Module, Unknown

__all__ = ["Parameter", "Signature", "Unknown", "of"]

DATACLASS = re.compile(r"(\w+\.)*dataclass\b(?!.*\binit=False)")
# Decorators that keep the arguments of a function or class; others may change them.
KEEPING = {
    "classmethod",
    "staticmethod",
    "cache",
    "lru_cache",
    "contextmanager",
    "no_grad",
    "abstractmethod",
    "final",
    "dataclass",
    "runtime_checkable",
    "total_ordering",
}


@dataclass(frozen=True)
class Parameter:
    """One argument: its annotation as source, and whether it must be given."""

    name: str
    annotation: ast.expr | None
    required: bool


@dataclass(frozen=True)
class Signature:
    """The arguments of a class or function.

    Args:
        parameters: by name.
        open: whether it takes **kwargs.
        positional: the names of those that can be given by position.
        any_positional: whether it takes *args.
    """

    parameters: dict[str, Parameter]
    open: bool
    positional: list[str]
    any_positional: bool


def of(target: str) -> Signature | None:
    """Return the signature of `package.module.Name` (or `.Name.method`).

    Returns:
        None where the source cannot tell.

    Raises:
        Unknown: no such module or name.
    """
    found = definitions.find(target)
    if found is None:
        return None
    module, node, owner = found
    if isinstance(node, ast.ClassDef):
        return _of_class(module, node)
    if isinstance(node, ast.FunctionDef) and _decorators(node) <= KEEPING:
        is_classmethod = owner is not None and "classmethod" in _decorators(node)
        return _of_function(node, skip=1 if is_classmethod else 0)
    return None


def _of_class(module: Module, node: ast.ClassDef) -> Signature | None:
    """Return the signature of the first constructor in the order of method resolution."""
    line = definitions.lineage(module, node)
    for i, ancestor in enumerate(line):
        if ancestor is None or _has_metaclass(ancestor[1]):
            return None
        names = definitions.class_names(ancestor[1])
        init = names.get("__init__", names.get("__new__"))
        # A decorated constructor takes, by custom, what it took before.
        if isinstance(init, ast.FunctionDef):
            return _of_function(init, skip=1)
        decorators = ancestor[1].decorator_list
        if init is None and any(DATACLASS.match(ast.unparse(d)) for d in decorators):
            return _of_dataclass(line[i:])
        if init is not None or not _decorators(ancestor[1]) <= KEEPING:
            return None
    return Signature({}, False, [], False)


def _has_metaclass(node: ast.ClassDef) -> bool:
    """Return whether a metaclass may take other arguments than the constructor."""
    return any(
        keyword.arg == "metaclass" and "ABC" not in ast.unparse(keyword.value)
        for keyword in node.keywords
    )


def _of_dataclass(line: Lineage) -> Signature | None:
    """Return the signature of the `__init__` that a dataclass generates.

    Args:
        line: the class and those it inherits from.
    """
    parameters: dict[str, Parameter] = {}
    for ancestor in reversed(line):
        if ancestor is None or re.search("kw_only|KW_ONLY|InitVar", ast.unparse(ancestor[1])):
            return None
        if "dataclass" not in _decorators(ancestor[1]):
            continue
        for node in ancestor[1].body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                parameter = _field(node.target.id, node)
                parameters |= {parameter.name: parameter} if parameter else {}
    return Signature(parameters, False, list(parameters), False)


def _field(name: str, node: ast.AnnAssign) -> Parameter | None:
    """Return the argument that sets a field of a dataclass; None for one that no argument sets."""
    required, options = node.value is None, set[str]()
    if isinstance(node.value, ast.Call) and ast.unparse(node.value.func).endswith("field"):
        options = {f"{k.arg}={ast.unparse(k.value)}" for k in node.value.keywords}
        required = not any(option.startswith("default") for option in options)
    if "ClassVar" in ast.unparse(node.annotation) or "init=False" in options:
        return None
    return Parameter(name, node.annotation, required)


def _of_function(node: ast.FunctionDef, skip: int) -> Signature:
    """Return the signature of a function, without its first `skip` arguments."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    without_default = len(positional) - len(arguments.defaults)
    defaults = [*[None] * without_default, *arguments.defaults, *arguments.kw_defaults]

    pairs = list(zip([*positional, *arguments.kwonlyargs], defaults, strict=True))[skip:]
    parameters = {
        one.arg: Parameter(one.arg, _optional(one.annotation, default), default is None)
        for one, default in pairs
    }
    names = [one.arg for one in positional[skip:]]
    return Signature(parameters, arguments.kwarg is not None, names, arguments.vararg is not None)


def _optional(annotation: ast.expr | None, default: ast.expr | None) -> ast.expr | None:
    """Return the annotation, extended by None if that is the default: `x: int = None`."""
    if annotation is not None and isinstance(default, ast.Constant) and default.value is None:
        return ast.BinOp(annotation, ast.BitOr(), default)
    return annotation


def _decorators(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    return {ast.unparse(d).partition("(")[0].rpartition(".")[2] for d in node.decorator_list}
