"""Reads class attributes from source text without importing it: literals, and calls of effbench's own small values."""

from __future__ import annotations

import ast
import operator
from typing import Any

from ..api import param as settings
from ..api import values

CALLS = {
    name: getattr(module, name)
    for module, names in (
        (settings, ("param", "knob", "Log", "Uniform", "Choice")),
        (values, ("Data", "Case", "Metric", "Claim", "Bound", "Budget")),
    )
    for name in names
}
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class NotLiteral(ValueError):
    """The text is not a literal that the registry can read; the message has the line."""


def literal(node: ast.AST) -> Any:
    """The value of a literal expression: constants, containers, arithmetic on numbers, calls of effbench's values."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Tuple(elts=items):
            return tuple(literal(item) for item in items)
        case ast.List(elts=items):
            return [literal(item) for item in items]
        case ast.Dict(keys=keys, values=items) if None not in keys:
            return {literal(key): literal(item) for key, item in zip(keys, items)}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(literal(operand), node)
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(op, literal(left), literal(right), node)
        case ast.Call(func=func, args=args, keywords=keywords):
            name = func.id if isinstance(func, ast.Name) else func.attr if isinstance(func, ast.Attribute) else ""
            if name not in CALLS or any(isinstance(arg, ast.Starred) for arg in args) or any(k.arg is None for k in keywords):
                raise NotLiteral(f"line {node.lineno}: '{ast.unparse(node)[:60]}' is not a literal")
            try:
                return CALLS[name](*(literal(arg) for arg in args), **{k.arg: literal(k.value) for k in keywords})
            except NotLiteral:
                raise
            except Exception as error:
                raise NotLiteral(f"line {node.lineno}: {name}(...): {error}") from None
    raise NotLiteral(f"line {getattr(node, 'lineno', '?')}: '{ast.unparse(node)[:60]}' is not a literal")


def _number(value: Any, node: ast.AST):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NotLiteral(f"line {node.lineno}: '{ast.unparse(node)[:60]}' is not a number")
    return value


def _arithmetic(op: ast.operator, left: Any, right: Any, node: ast.AST) -> Any:
    if isinstance(op, ast.Add) and isinstance(left, str) and isinstance(right, str):
        return left + right
    left, right = _number(left, node), _number(right, node)
    if isinstance(op, ast.Pow) and abs(right) <= 64 and abs(left) <= 1e6:
        return left**right
    if type(op) in OPERATORS:
        return OPERATORS[type(op)](left, right)
    raise NotLiteral(f"line {node.lineno}: '{ast.unparse(node)[:60]}' is not a literal")
