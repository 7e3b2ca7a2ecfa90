"""Compare plain values with annotations that were read as source."""

from __future__ import annotations

import ast
from typing import Any

from fkp.runs.keys import meant

# Stands for a value that is missing or that an interpolation does not find.
UNKNOWN = ...

# The types of plain values that an annotation accepts, by its name.
PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
    "Path": (str,),
    "list": (list,),
    "List": (list,),
    "tuple": (list,),
    "Tuple": (list,),
    "Sequence": (list,),
    "Iterable": (list,),
    "set": (list,),
    "dict": (dict,),
    "Dict": (dict,),
    "Mapping": (dict,),
}
# Annotations that no plain value satisfies.
NEVER_PLAIN = (
    "Tensor",
    "Module",
    "Optimizer",
    "LRScheduler",
    "Callback",
    "Logger",
    "Markup",
    "Transform",
)


def fits(value: Any, wanted: ast.expr) -> bool:
    """Return whether an annotation accepts a plain value; true where either is not understood.

    Args:
        value: plain, or UNKNOWN, or a dictionary with a `_target_`.
        wanted: the annotation.
    """
    if value is UNKNOWN or (isinstance(value, dict) and "_target_" in value):
        return True
    if isinstance(wanted, ast.Constant):
        return _fits_constant(value, wanted)
    if isinstance(wanted, ast.BinOp):
        return fits(value, wanted.left) or fits(value, wanted.right)
    if isinstance(wanted, ast.Subscript):
        return _fits_subscript(value, wanted)

    name = _last_word(wanted)
    if name in NEVER_PLAIN:
        return False
    if name not in PLAIN:
        return True
    # A bool is an int in Python, but not for a user.
    number = name in ("int", "float")
    return isinstance(value, PLAIN[name]) and not (number and isinstance(value, bool))


def _fits_constant(value: Any, wanted: ast.Constant) -> bool:
    """Compare with None, or with an annotation in quotes."""
    if not isinstance(wanted.value, str):
        return wanted.value is not None or value is None
    try:
        return fits(value, ast.parse(wanted.value, mode="eval").body)
    except SyntaxError:
        return True


def _fits_subscript(value: Any, wanted: ast.Subscript) -> bool:
    """Compare with `Optional[…]`, `Union[…]`, `Literal[…]` or a container."""
    name, inner = _last_word(wanted.value), _inner(wanted)
    if name == "Optional":
        return value is None or fits(value, inner[0])
    if name == "Union":
        return any(fits(value, option) for option in inner)
    if name == "Literal":
        options = [option.value for option in inner if isinstance(option, ast.Constant)]
        return value in options or len(options) < len(inner)
    return _fits_container(value, name, inner) if name in PLAIN else True


def _fits_container(value: Any, name: str, inner: list[ast.expr]) -> bool:
    """Compare with a container `name[inner]`."""
    if isinstance(value, dict):
        return dict in PLAIN[name] and all(fits(item, inner[-1]) for item in value.values())
    if not isinstance(value, list) or list not in PLAIN[name]:
        return False
    if name in ("tuple", "Tuple"):
        if len(inner) == 2 and isinstance(inner[1], ast.Constant) and inner[1].value is ...:
            return all(fits(item, inner[0]) for item in value)
        return len(inner) == len(value) and all(map(fits, value, inner))
    return all(fits(item, inner[0]) for item in value)


def described(value: Any, annotation: ast.expr) -> str:
    """Describe what an annotation accepts, with a suggestion for a value that it does not."""
    if isinstance(annotation, ast.Subscript) and _last_word(annotation.value) == "Literal":
        constants = [option for option in _inner(annotation) if isinstance(option, ast.Constant)]
        options = [str(option.value) for option in constants]
        return f"one of {', '.join(options)}{meant(str(value), options)}"
    return ast.unparse(annotation)


def _last_word(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


def _inner(node: ast.Subscript) -> list[ast.expr]:
    """Return what stands in the brackets."""
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
