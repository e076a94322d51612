"""The syntax trees of the source, and the texts in them, from which reference tables are written."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: Packages whose source is searched for error codes and event types.
PACKAGES = ("models", "pipelines", "tasks", "web")


def nodes() -> Iterator[ast.AST]:
    """Yield the syntax nodes of all modules of PACKAGES."""
    for tree in trees():
        yield from ast.walk(tree)


def trees() -> Iterator[ast.Module]:
    """Yield the syntax trees of all modules of PACKAGES."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"))


def strings() -> Iterator[str]:
    """Yield each literal text of the source."""
    return (node.value for node in nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str))


def assigned_value(node: ast.expr, assignments: Iterable[ast.Assign]) -> ast.expr:
    """Return the value of the last assignment before a variable is used; any other expression unchanged."""
    if not isinstance(node, ast.Name):
        return node
    earlier = [
        assignment
        for assignment in assignments
        if assignment.lineno < node.lineno
        and any(isinstance(target, ast.Name) and target.id == node.id for target in assignment.targets)
    ]
    return max(earlier, key=lambda assignment: assignment.lineno).value if earlier else node


def literal(node: ast.expr) -> str:
    """Return a literal text, with `…` for each value in it; an empty text for any other expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""
