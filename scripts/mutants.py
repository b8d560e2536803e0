"""The mutants of a module: small changes of its syntax tree, each of which a test ought to notice.

Left alone are what only people read (docstrings, texts with a space, f-strings, log calls), types, decorators and imports.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitAnd: (ast.BitOr,),
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
REMOVED = (ast.Raise, ast.Continue, ast.Break, ast.AugAssign)
"""Statements that are removed wherever they are."""
TYPES = ("annotation", "returns", "decorator_list", "bases", "type_comment")
"""The fields of a node that only say types."""


@dataclass(frozen=True)
class Mutant:
    """One change of a module.

    :param node: the changed node, by its place in ``ast.walk``.
    :param option: which of the node's changes.
    :param scope: the names of the class and the function around it; empty outside of them.
    :param lines: the first and last line of its statement, or of the statement's head.
    :param swappable: whether it changes only the body of a function, which can be exchanged in a running process.
    :param text: the change in words.
    """

    node: int
    option: int
    scope: tuple[str, ...]
    lines: tuple[int, int]
    swappable: bool
    text: str


Change = tuple[ast.AST, str, int | None, ast.AST | None]
"""A parent, its field, the place in a list or ``None``, and what comes there; ``None`` to take it out."""


def mutants_of(source: str) -> list[Mutant]:
    """Return the mutants of a module, in the order of its lines.

    :param source: the text of the module.
    """
    tree = ast.parse(source)
    numbers = {id(node): number for number, node in enumerate(ast.walk(tree))}
    found = [
        Mutant(numbers[id(node)], option, *where, _words(node, change))
        for node, where in _visit(tree, (), (1, 1), False)
        for option, change in enumerate(_changes(node))
    ]
    return sorted(found, key=lambda one: (one.lines, one.node, one.option))


def compiled(source: str, filename: str, mutant: Mutant) -> CodeType:
    """Return the code of a module with one mutant.

    :param source: the text of the module.
    :param filename: the module's file, for tracebacks.
    """
    tree = ast.parse(source)
    node = next(node for number, node in enumerate(ast.walk(tree)) if number == mutant.node)
    parent, field, place, new = _changes(node)[mutant.option]
    if place is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[place : place + 1] = [] if new is None else [new]
        if isinstance(parent, ast.Dict) and new is None:
            del parent.values[place]
        if isinstance(parent, ast.BoolOp) and len(parent.values) == 1:
            parent.values.append(parent.values[0])
    code: CodeType = compile(ast.fix_missing_locations(tree), filename, "exec")
    return code


def _visit(
    node: ast.AST, scope: tuple[str, ...], lines: tuple[int, int], swappable: bool
) -> Iterator[tuple[ast.AST, tuple[tuple[str, ...], tuple[int, int], bool]]]:
    """Yield the nodes that may be changed, each with its scope, its lines, and whether it is in a function's body."""
    if isinstance(node, ast.stmt):
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
        lines = (node.lineno, max(last, node.lineno))
    yield node, (scope, lines, swappable)
    is_definition = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    for field, value in ast.iter_fields(node):
        if field in TYPES:
            continue
        inside = is_definition and field == "body" and not swappable
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_left_alone(child, node):
                yield from _visit(
                    child,
                    (*scope, node.name) if inside and isinstance(node, ast.stmt) else scope,  # type: ignore[attr-defined]
                    lines,
                    swappable or (inside and not isinstance(node, ast.ClassDef)),
                )


def _is_left_alone(node: ast.AST, parent: ast.AST) -> bool:
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("log.", "TypeVar", "logging.")):
        return True
    if isinstance(node, ast.BinOp) and isinstance(parent, ast.Assign) and "None" not in ast.dump(node):
        return isinstance(node.op, ast.BitOr) and ast.unparse(parent.targets[0])[0].isupper()
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
        return True
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.JoinedStr))


def _changes(node: ast.AST) -> list[Change]:
    """Return the changes that begin at a node."""
    found: list[Change] = []
    for field, value in ast.iter_fields(node):
        if field in TYPES:
            continue
        for place, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or (isinstance(node, ast.Call) and field == "func"):
                continue
            found += [(node, field, place, new) for new in _replacements(child, node, field)]
    if isinstance(node, ast.BoolOp):
        found += [(node, "values", place, None) for place in range(len(node.values))]
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in NAMES:
            found.append((node, "func", None, ast.Name(NAMES[node.func.id], ast.Load())))
        found += [(node, "keywords", place, None) for place, one in enumerate(node.keywords) if one.arg]
    if isinstance(node, ast.Dict):
        found += [(node, "keys", place, None) for place, key in enumerate(node.keys) if key]
    if isinstance(node, (ast.Set, ast.List, ast.Tuple)) and all(map(_is_name, node.elts)):
        kept = isinstance(getattr(node, "ctx", None), ast.Store) or len(node.elts) < 2
        found += [] if kept else [(node, "elts", place, None) for place in range(len(node.elts))]
    return found


def _is_name(node: ast.AST) -> bool:
    """Return whether a node may be an entry of a table of names."""
    return isinstance(node, ast.Attribute) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _replacements(node: ast.AST, parent: ast.AST, field: str) -> Iterator[ast.AST]:
    if type(node) in SWAPS:
        yield from (swap() for swap in SWAPS[type(node)])
    elif isinstance(node, ast.Constant):
        yield from _other_constants(node.value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif field in {"test", "ifs"} and not isinstance(node, (ast.Compare, ast.BoolOp)):
        yield ast.UnaryOp(ast.Not(), node)  # type: ignore[arg-type]
    elif _is_removable(node, parent):
        yield ast.Pass()


def _other_constants(value: Any) -> Iterator[ast.Constant]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, (int, float)):
        yield ast.Constant(value + 1)
    elif isinstance(value, str) and " " not in value:
        yield ast.Constant(f"{value}XX")


def _is_removable(node: ast.AST, parent: ast.AST) -> bool:
    if isinstance(node, ast.Return):
        return not isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef))
    if isinstance(node, ast.Expr):
        return isinstance(node.value, (ast.Call, ast.Await)) and not _is_left_alone(node.value, node)
    if isinstance(node, ast.Assign):
        return not isinstance(node.targets[0], (ast.Name, ast.Tuple))
    return isinstance(node, REMOVED)


def _words(node: ast.AST, change: Change) -> str:
    parent, field, place, new = change
    old = getattr(parent, field) if place is None else getattr(parent, field)[place]
    if isinstance(new, (ast.operator, ast.cmpop)):
        return f"{_short(node)}: {type(old).__name__} becomes {type(new).__name__}"
    if new is None:
        return f"{_short(node)}: without {_short(old)}"
    return f"{_short(old)} becomes {_short(new)}" + ("" if len(_short(old)) > 12 else f" in {_short(node)}")


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:87]}..."
