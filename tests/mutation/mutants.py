"""Every small mistake that a module could have been written with; no tests are run here.

A mutant is one change of one module's syntax tree. What is changed:

- comparisons (boundary and negation), ``and``/``or`` and their operands, ``not``, conditions;
- numbers (by one), booleans, texts and bytes, slice bounds (by one), arithmetic;
- ``min``/``max``, ``any``/``all`` and the like swapped for each other;
- statements, ``case`` clauses and their guards removed; ``return`` without its value.

What is left alone: annotations, docstrings, decorators, imports, type aliases, the types handed to
``cast``, branches that only a type checker knows, and prose: a text with a space in it is a message.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
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
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
TWINS = {"min": "max", "any": "all", "startswith": "endswith", "find": "rfind", "index": "rindex"}
TWINS |= {other: one for one, other in TWINS.items()}
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Mutant:
    """One change: ``old`` becomes ``new`` in the statement ``within`` of the function ``where``.

    ``holder`` is the object or list whose ``slot`` gets ``value``. ``owner`` is the outermost function
    around it, whose code holds it, ``span`` the lines of its statement, or of that one's head: who has
    run none of them cannot tell the mutant. ``at_import`` says that the change is not in the body of a
    function, so that it takes an import to make it.
    """

    module: str
    where: str
    within: str
    old: str
    new: str
    line: int
    holder: Any
    slot: Any
    value: Any
    owner: str = ""
    span: range = range(0)
    at_import: bool = False
    number: int = 1

    @property
    def key(self) -> str:
        """Names the mutant for as long as its statement stays as it is, wherever that moves."""
        within = "" if self.within == self.old else f" | {self.within}"
        count = f" #{self.number}" if self.number > 1 else ""
        return f"{self.old} -> {self.new}{within}{count}"

    def apply(self) -> None:
        """Change the tree that the mutant was made from."""
        if isinstance(self.holder, dict):
            self.holder.update(self.value)
        elif isinstance(self.holder, list):
            self.holder[self.slot] = self.value
        else:
            setattr(self.holder, self.slot, self.value)


def mutants_of(module: str, tree: ast.Module) -> list[Mutant]:
    """Give every mutant of a module's tree, in the order of the source."""
    found: list[Mutant] = []
    seen: Counter[tuple[str, str]] = Counter()
    for mutant in _Walk(module, tree).block(tree, ""):
        seen[mutant.where, mutant.key] += 1
        found.append(replace(mutant, number=seen[mutant.where, mutant.key]))
    return found


def _show(node: Any) -> str:
    if isinstance(node, ast.cmpop | ast.boolop | ast.operator):
        return type(node).__name__
    return ast.unparse(node) if node is not None else "nothing"


def _head(statement: ast.stmt | ast.match_case) -> str:
    return ast.unparse(statement).splitlines()[0]


class _Walk:
    def __init__(self, module: str, tree: ast.Module) -> None:
        self.module = module
        self.owner = ""
        self.variadic = {
            each.name
            for each in tree.body
            if isinstance(each, ast.FunctionDef) and each.args.vararg
        }

    def block(self, node: ast.AST, where: str) -> Iterator[Mutant]:
        """Go through the statements below ``node``."""
        for _, value in ast.iter_fields(node):
            if not isinstance(value, list):
                continue
            for index, child in enumerate(value):
                if isinstance(child, ast.stmt):
                    yield from self.statement(child, where, value, index)
                elif isinstance(child, ast.ExceptHandler):
                    yield from self.block(child, where)
                elif isinstance(child, ast.match_case):
                    yield from self.case(child, where, value, index)

    def statement(
        self, node: ast.stmt, where: str, siblings: list[Any], index: int
    ) -> Iterator[Mutant]:
        if self._is_for_types(node) or (isinstance(node, ast.Expr) and _is_text(node.value)):
            return
        if isinstance(node, SCOPES):
            inner = f"{where}.{node.name}" if where else node.name
            if not isinstance(node, ast.ClassDef):
                for default in (node.args.defaults, node.args.kw_defaults):
                    yield from self.each(default, _Place(inner, node, at_import=not self.owner))
            outer = self.owner
            if not isinstance(node, ast.ClassDef):
                self.owner = outer or inner
            yield from self.block(node, inner)
            self.owner = outer
            return
        place = _Place(where, node, at_import=not self.owner)
        for replacement in _instead_of(node):
            yield self.mutant(place, node, siblings, index, replacement)
        if isinstance(node, ast.Return) and not isinstance(node.value, ast.Constant | None):
            yield self.mutant(place, node.value, node, "value", ast.Constant(None))
        if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
            yield self.mutant(place, node.op, node, "op", ARITHMETIC[type(node.op)]())
        yield from self.expressions(node, place)
        yield from self.block(node, where)

    def case(
        self, node: ast.match_case, where: str, siblings: list[Any], index: int
    ) -> Iterator[Mutant]:
        if any(map(self._is_for_types, node.body)):
            return
        head = ast.unparse(node.pattern)
        place = _Place(where, node, f"case {head}")
        if len(siblings) > 1:
            never = ast.match_case(node.pattern, ast.Constant(False), node.body)
            yield self.mutant(place, node.pattern, siblings, index, never, new="never")
        if node.guard is not None:
            yield self.mutant(place, node.guard, node, "guard", None)
            yield self.mutant(place, node.guard, node, "guard", _negated(node.guard))
            yield from self.expression(node, "guard", node.guard, place)
        yield from self.block(node, where)

    def expressions(self, node: ast.AST, place: _Place) -> Iterator[Mutant]:
        """Go through the expressions right below ``node``."""
        for field, value in ast.iter_fields(node):
            if isinstance(value, list):
                yield from self.each(value, place)
            elif field not in ("annotation", "returns", "op") and isinstance(value, ast.AST):
                yield from self.expression(node, field, value, place)

    def each(self, values: list[Any], place: _Place) -> Iterator[Mutant]:
        for index, child in enumerate(values):
            if isinstance(child, ast.expr | ast.comprehension | ast.keyword | ast.withitem):
                yield from self.expression(values, index, child, place)

    def expression(self, holder: Any, slot: Any, node: Any, place: _Place) -> Iterator[Mutant]:
        match node:
            case ast.JoinedStr() | ast.pattern():
                return
            case ast.Call(func=ast.Name(id="cast"), args=arguments):
                yield from self.expression(arguments, 1, arguments[1], place)
                return
            case _:
                pass
        decides = isinstance(holder, ast.If | ast.While | ast.IfExp) and slot == "test"
        if decides and not (isinstance(node, ast.Compare) and len(node.ops) == 1):
            yield self.mutant(place, node, holder, slot, _negated(node))
        if isinstance(node, ast.comprehension):
            for index, condition in enumerate(node.ifs):
                always = ast.Constant(True)
                yield self.mutant(place, condition, node.ifs, index, always)
        for replacement in _instead_of_expression(node):
            yield self.mutant(place, node, holder, slot, replacement)
        if isinstance(node, ast.Compare):
            for index, operator in enumerate(node.ops):
                for other in COMPARISONS[type(operator)]:
                    changed = [*node.ops[:index], other(), *node.ops[index + 1 :]]
                    compared = ast.Compare(node.left, changed, node.comparators)
                    yield self.mutant(place, node, holder, slot, compared)
        yield from self.shorter(node, place)
        if isinstance(node, ast.Slice):
            for bound in ("lower", "upper"):
                old = getattr(node, bound)
                if old is not None and not isinstance(old, ast.Constant):
                    more = ast.BinOp(old, ast.Add(), ast.Constant(1))
                    yield self.mutant(place, old, node, bound, more)
        yield from self.expressions(node, place)

    def shorter(self, node: Any, place: _Place) -> Iterator[Mutant]:
        """Take one element out of a display, or out of like arguments."""
        match node:
            case ast.Tuple(elts=elements, ctx=ast.Load()) | ast.List(elts=elements, ctx=ast.Load()):
                field = "elts"
            case ast.Call(func=ast.Name(id=name), args=elements) if name in self.variadic:
                field = "args"
            case ast.Set(elts=elements):
                field = "elts"
            case ast.Dict(keys=keys, values=values):
                for index, key in enumerate(keys):
                    entries = {
                        "keys": [*keys[:index], *keys[index + 1 :]],
                        "values": [*values[:index], *values[index + 1 :]],
                    }
                    yield self.mutant(place, key, vars(node), None, entries, new="nothing")
                return
            case _:
                return
        if len(elements) > 1:
            for index, element in enumerate(elements):
                rest = [*elements[:index], *elements[index + 1 :]]
                yield self.mutant(place, element, node, field, rest, new="nothing")

    def mutant(
        self, place: _Place, old: Any, holder: Any, slot: Any, value: Any, *, new: str = ""
    ) -> Mutant:
        if isinstance(value, ast.AST) and isinstance(old, ast.AST):
            ast.copy_location(value, old)
            ast.fix_missing_locations(value)
        shown = _head(old) if isinstance(old, ast.stmt) else _show(old)
        return Mutant(
            module=self.module,
            where=place.where,
            within=place.within,
            old=shown,
            new=new or _show(value),
            line=getattr(old, "lineno", place.line),
            holder=holder,
            slot=slot,
            value=value,
            owner=self.owner,
            span=place.span,
            at_import=place.at_import,
        )

    @staticmethod
    def _is_for_types(node: ast.stmt) -> bool:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Assert():
                return True
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                return True
            case ast.Expr(value=ast.Call(func=ast.Name(id="assert_never"))):
                return True
            case ast.AnnAssign(value=None) | ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
                return True
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                return True
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
                return True
            case _:
                return False


class _Place:
    """The function and the statement that a mutant stands in."""

    def __init__(
        self,
        where: str,
        statement: ast.stmt | ast.match_case,
        within: str = "",
        *,
        at_import: bool = False,
    ) -> None:
        head: Any = statement.pattern if isinstance(statement, ast.match_case) else statement
        body: list[Any] = getattr(statement, "body", [])
        end: int = body[0].lineno - 1 if body else head.end_lineno
        self.where = where
        self.at_import = at_import
        self.within = within or _head(statement)
        self.line: int = head.lineno
        self.span = range(self.line, max(self.line, end) + 1)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _negated(node: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), node)


def _instead_of(node: ast.stmt) -> Iterator[ast.stmt]:
    match node:
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.Delete() | ast.Break():
            yield ast.Pass()
        case ast.AugAssign():
            yield ast.Pass()
        case ast.Assign() if not all(isinstance(each, ast.Name) for each in node.targets):
            yield ast.Pass()
        case ast.Continue():
            yield ast.Pass()
            yield ast.Break()
        case _:
            pass


def _instead_of_expression(node: Any) -> Iterator[ast.expr]:
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str(value)) if " " not in value.strip():
            yield ast.Constant(f"{value}X")
        case ast.Constant(value=bytes(value)):
            yield ast.Constant(value + b"X")
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield operand
        case ast.BoolOp(op=operator, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
            for index in range(len(values)):
                rest = [*values[:index], *values[index + 1 :]]
                yield ast.BoolOp(operator, rest) if len(rest) > 1 else rest[0]
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in ARITHMETIC:
            yield ast.BinOp(left, ARITHMETIC[type(operator)](), right)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Call(func=ast.Name(id=name)) if name in TWINS:
            yield ast.Call(ast.Name(TWINS[name], ast.Load()), node.args, node.keywords)
        case ast.Call(func=ast.Attribute(value=holder, attr=name)) if name in TWINS:
            twin = ast.Attribute(holder, TWINS[name], ast.Load())
            yield ast.Call(twin, node.args, node.keywords)
        case ast.Starred():
            pass
        case _:
            pass
