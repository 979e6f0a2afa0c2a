"""Mutators: small faults that a test suite should notice, made one at a time in the syntax tree of a module.

A mutant is a place in the tree and the node that takes that place. Docstrings, type annotations, decorators, messages
of errors and warnings, logging, `assert` and `__all__` are left alone, because no test should depend on them. The
arguments `strict` (like an assertion) and `device` (for machines with a GPU) are left alone too.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

Path = tuple[tuple[str, int | None], ...]  # the fields, and the places in lists, from the module down to a node

ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_PAIRS = (("min", "max"), ("sum", "mean"), ("any", "all"), ("argmin", "argmax"), ("zeros", "ones"), ("floor", "ceil"))
NAMES = {left: right for pair in _PAIRS for left, right in (pair, pair[::-1])}
STRINGS = {"first": "second", "second": "first", "best": "last", "last": "best", "mean": "sum", "sum": "mean"}
_WITHOUT_EFFECT = {"detach", "clone", "contiguous"}  # methods that a mutant leaves out
_SYMMETRIC = {"max", "min", "maximum", "minimum"}  # what they return does not depend on the order of their arguments
_LOGGING = {"print", "warn", "debug", "info", "warning", "cast", "TypeVar", "NewType"}
_LEFT_ALONE = (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.MatchValue)


@dataclass(frozen=True)
class Mutant:
    """A fault in a module.

    Attributes:
        path: The place of the changed node in the tree.
        node: The node that takes its place.
        line: The line of the changed node.
        lines: The first and the last line of its statement; of a statement with a body, those of its head.
        before: The changed node as text.
        after: What takes its place, as text.
    """

    path: Path
    node: ast.AST = field(compare=False)
    line: int
    lines: tuple[int, int]
    before: str
    after: str


def make_mutants(source: str) -> list[Mutant]:
    """Return all mutants of a module's source, in the order of its lines.

    >>> [(mutant.before, mutant.after) for mutant in make_mutants("x = a + 1")]
    [('a + 1', 'a - 1'), ('1', '2')]
    """
    tree = ast.parse(source)
    mutants = {}
    for path, node, statement, scope in _visit(tree, (), tree, tree):
        for new in _replacements(node, path, scope):
            before, after = ast.unparse(node), ast.unparse(new)
            if before != after:
                line = int(getattr(node, "lineno", 0))
                mutants[path, after] = Mutant(path, new, line, _head(statement, line), before, after)
    return sorted(mutants.values(), key=lambda mutant: mutant.line)


def apply(source: str, mutant: Mutant) -> ast.Module:
    """Return the tree of the module with the fault.

    >>> ast.unparse(apply("x = a + 1", make_mutants("x = a + 1")[0]))
    'x = a - 1'
    """
    tree = ast.parse(source)
    parent: ast.AST = tree
    *above, (last, place) = mutant.path
    for name, index in above:
        value = getattr(parent, name)
        parent = value if index is None else value[index]
    if place is None:
        setattr(parent, last, mutant.node)
    else:
        getattr(parent, last)[place] = mutant.node
    return ast.fix_missing_locations(tree)


def _visit(
    node: ast.AST, path: Path, statement: ast.AST, scope: ast.AST
) -> Iterator[tuple[Path, ast.AST, ast.AST, ast.AST]]:
    """Yield every node that may be changed, with its path, and the statement and the function that it belongs to."""
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "type_comment", "bases", "format_spec"}:
            continue
        children = enumerate(value) if isinstance(value, list) else [(None, value)]
        for place, child in children:
            if isinstance(child, ast.AST) and not _is_left_alone(child):
                inner = child if isinstance(child, ast.stmt) else statement
                below = (*path, (name, place))
                yield below, child, inner, scope
                yield from _visit(child, below, inner, child if isinstance(child, ast.FunctionDef) else scope)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, _LEFT_ALONE):
        return True
    if isinstance(node, ast.keyword):
        return node.arg in {"strict", "device"}
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or _is_left_alone(node.value)  # a docstring, or logging
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.Call):
        name = _called(node)
        return name in _LOGGING or name.endswith(("Error", "Warning"))
    return False


def _called(call: ast.Call) -> str:
    """Return the last name of what is called; an empty one if it is neither a name nor an attribute."""
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _head(statement: ast.AST, line: int) -> tuple[int, int]:
    first = getattr(statement, "lineno", line)
    body = getattr(statement, "body", None)
    last = max(first, body[0].lineno - 1) if isinstance(body, list) else getattr(statement, "end_lineno", line)
    return min(first, line), max(last, line)


def _replacements(node: ast.AST, path: Path, scope: ast.AST) -> Iterator[ast.AST]:
    if path[-1][0] == "test" and isinstance(node, ast.Name | ast.Attribute | ast.Call):
        yield ast.UnaryOp(ast.Not(), node)
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            if not isinstance(left, ast.JoinedStr):
                yield ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case ast.AugAssign(target=target, op=op, value=value):
            yield ast.Pass()
            if type(op) in ARITHMETIC:
                yield ast.AugAssign(target, ARITHMETIC[type(op)](), value)
        case ast.Compare(left=left, ops=ops, comparators=others):
            for place, comparison in enumerate(ops):
                yield ast.Compare(left, [*ops[:place], COMPARISONS[type(comparison)](), *ops[place + 1 :]], others)
        case ast.BoolOp(op=junction, values=values):
            yield ast.BoolOp(ast.And() if isinstance(junction, ast.Or) else ast.Or(), values)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=value):
            yield from _other_constants(value)
        case ast.Name(id=name, ctx=context) if name in NAMES and isinstance(context, ast.Load):
            if not _is_called(path):
                return
            if NAMES[name] != "mean":
                yield ast.Name("sum" if name == "mean" else NAMES[name], context)
        case ast.Attribute(value=owner, attr=name, ctx=context) if name in NAMES and _is_called(path):
            yield ast.Attribute(owner, NAMES[name], context)
        case ast.Call():
            yield from _other_calls(node)
        case ast.Slice(lower=lower, upper=upper, step=step):
            yield from _other_slices(lower, upper, step)
        case _:
            yield from _other_statements(node, scope)


def _is_called(path: Path) -> bool:
    return path[-1][0] == "func"


def _other_constants(value: object) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(value * 2 if value else 1.0)
    elif isinstance(value, str) and value in STRINGS:
        yield ast.Constant(STRINGS[value])


def _other_calls(call: ast.Call) -> Iterator[ast.AST]:
    """Yield the call without an argument, with neighbours exchanged, and what a call without effect is called on."""
    positional, name = call.args, _called(call)
    for place in range(len(positional) - 1 if name not in _SYMMETRIC else 0):
        exchanged = [*positional[:place], positional[place + 1], positional[place], *positional[place + 2 :]]
        yield ast.Call(call.func, exchanged, call.keywords)
    if len(positional) > 1:
        yield ast.Call(call.func, positional[:-1], call.keywords)
    for place, keyword in enumerate(call.keywords):
        if not _is_left_alone(keyword):
            yield ast.Call(call.func, positional, [*call.keywords[:place], *call.keywords[place + 1 :]])
    if name in _WITHOUT_EFFECT and isinstance(call.func, ast.Attribute) and not positional:
        yield call.func.value
    if name == "sorted" and not any(keyword.arg == "reverse" for keyword in call.keywords):
        yield ast.Call(call.func, positional, [*call.keywords, ast.keyword("reverse", ast.Constant(True))])


def _other_slices(lower: ast.expr | None, upper: ast.expr | None, step: ast.expr | None) -> Iterator[ast.AST]:
    """Yield the slice with a bound moved; a bound that is a number is moved by the mutant of the number."""
    if lower is None and upper is not None:
        yield ast.Slice(ast.Constant(1), upper, step)
    if lower is not None and not isinstance(lower, ast.Constant):
        yield ast.Slice(ast.BinOp(copy.deepcopy(lower), ast.Add(), ast.Constant(1)), upper, step)
    if upper is not None and not isinstance(upper, ast.Constant):
        yield ast.Slice(lower, ast.BinOp(copy.deepcopy(upper), ast.Add(), ast.Constant(1)), step)


def _other_statements(node: ast.AST, scope: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Assign(targets=targets) if all(_is_set_elsewhere(target, scope) for target in targets):
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case _:
            return


def _is_set_elsewhere(target: ast.expr, scope: ast.AST) -> bool:
    """Whether the target has a value without this assignment; without one every test would see the missing name."""
    if isinstance(target, ast.Attribute | ast.Subscript):
        return True
    if not isinstance(target, ast.Name):
        return False
    names = (node.id for node in ast.walk(scope) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    arguments = (node.arg for node in ast.walk(scope) if isinstance(node, ast.arg))
    return [*names, *arguments].count(target.id) > 1
