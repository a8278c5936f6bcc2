"""Roles of the tokens of Python source code: tokens from `tokenize`, spans from `ast`, tags in IOB2.

A row is a logical line: a statement, or the head of a compound statement, which may span several physical lines.
Comments, indentation and line ends are not tokens. The roles:

    function, class      the name that `def` or `class` defines
    parameter            the name of a parameter of `def` or `lambda`
    annotation           the complete annotation of a parameter, a variable or a result: `Optional [ int ]`
    base                 a base class (if it is a call, the function is a callee instead)
    decorator            the expression after `@`, without arguments
    module, imported     `from module import imported`, with leading dots; `alias` is the name after `as`
    callee               the called dotted name: `os . path . join`; in `f(x).g(y)` both `f` and, separately, `g`
    keyword              the name of a keyword argument
    exception            the exception that is raised, or named by `except`
    loop_variable        a name bound by `for`, in a loop or a comprehension; each name of a tuple separately
    target               any other name or dotted name that is bound: `self . size = ...`, `with ... as file`, patterns
    attribute            any other dotted name: `self . size`; after an expression only the last name: `rows[0].size`

Where roles nest, the outermost wins. Names that are only read, literals, keywords and operators are `O`.
"""

import ast
from collections.abc import Iterator
from functools import singledispatch
from itertools import pairwise
from typing import NamedTuple

from tasks.datasets.stdlib.source import parse
from tasks.datasets.stdlib.tokens import Source


class LogicalLine(NamedTuple):
    """One row: its tokens, their IOB2 tags, and the first line in the file."""

    tokens: list[str]
    tags: list[str]
    line: int


def logical_lines(text: str) -> Iterator[LogicalLine]:
    """Yield the logical lines of a module's source.

    Raises:
        SyntaxError: the text is not valid in the running Python version.
    """
    tree = parse(text)
    source = Source(text)
    # Outer nodes come first, and a claimed token is never claimed again: so the outermost role wins.
    for node in outermost_first(tree):
        claim_roles(node, source)
    for (first, line), (end, _) in pairwise([*source.rows, (len(source.tokens), 0)]):
        yield LogicalLine(source.tokens[first:end], source.tags[first:end], line)


def outermost_first(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes in breadth-first order, except those inside f-strings, which are single tokens."""
    level = [tree]
    while level:
        yield from level
        inner = (node for node in level if type(node).__name__ not in ("JoinedStr", "TemplateStr"))
        level = [child for node in inner for child in ast.iter_child_nodes(node)]


@singledispatch
def claim_roles(node: ast.AST, source: Source) -> None:
    """Claim the tokens to which a node gives a role; most kinds of nodes give none."""


@claim_roles.register
def _(node: ast.FunctionDef | ast.AsyncFunctionDef, source: Source) -> None:
    name = source.behind("def", source.begin(node))
    source.claim("function", name, name)
    claim_decorators(node, source)
    if node.returns is not None:
        source.claim_node("annotation", node.returns)


@claim_roles.register
def _(node: ast.ClassDef, source: Source) -> None:
    name = source.begin(node) + 1
    source.claim("class", name, name)
    claim_decorators(node, source)
    for base in node.bases:
        if not isinstance(base, (ast.Call, ast.Starred)):
            source.claim_node("base", base)


def claim_decorators(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, source: Source) -> None:
    for decorator in node.decorator_list:
        source.claim_node("decorator", decorator.func if isinstance(decorator, ast.Call) else decorator)


@claim_roles.register
def _(node: ast.arg, source: Source) -> None:
    source.claim("parameter", source.begin(node), source.begin(node))
    if node.annotation is not None:
        source.claim_node("annotation", node.annotation)


@claim_roles.register
def _(node: ast.Import | ast.ImportFrom, source: Source) -> None:
    role = "module" if isinstance(node, ast.Import) else "imported"
    if isinstance(node, ast.ImportFrom):
        start = source.begin(node)
        source.claim("module", start + 1, source.behind("import", start) - 2)
    for name in node.names:
        start, end = source.begin(name), source.end(name)
        source.claim(role, start, start + 2 * name.name.count("."))
        if name.asname is not None:
            source.claim("alias", end, end)


@claim_roles.register
def _(node: ast.Raise, source: Source) -> None:
    if node.exc is not None:
        source.claim_name("exception", node.exc.func if isinstance(node.exc, ast.Call) else node.exc)


@claim_roles.register
def _(node: ast.ExceptHandler, source: Source) -> None:
    if node.type is None:
        return
    for exception in node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]:
        source.claim_name("exception", exception)
    if node.name is not None:
        name = source.behind("as", source.end(node.type))
        source.claim("target", name, name)


@claim_roles.register
def _(node: ast.For | ast.AsyncFor | ast.comprehension, source: Source) -> None:
    for bound in ast.walk(node.target):
        if isinstance(bound, ast.Name | ast.Attribute) and isinstance(bound.ctx, ast.Store):
            source.claim_name("loop_variable", bound)


@claim_roles.register
def _(node: ast.Name | ast.Attribute, source: Source) -> None:
    # A name that is only read stays `O` or belongs to another node.
    if isinstance(node.ctx, ast.Store):
        source.claim_name("target", node)
    elif isinstance(node, ast.Attribute):
        source.claim_name("attribute", node)


@claim_roles.register
def _(node: ast.MatchAs | ast.MatchStar, source: Source) -> None:
    if node.name is not None:
        source.claim("target", source.end(node), source.end(node))


@claim_roles.register
def _(node: ast.MatchMapping, source: Source) -> None:
    if node.rest is not None:
        end = source.end(node) - 1  # the name of `**rest` is the last token before the brace
        end -= source.tokens[end] == ","
        source.claim("target", end, end)


@claim_roles.register
def _(node: ast.MatchClass, source: Source) -> None:
    source.claim_name("callee", node.cls)


@claim_roles.register
def _(node: ast.Call, source: Source) -> None:
    source.claim_name("callee", node.func)


@claim_roles.register
def _(node: ast.AnnAssign, source: Source) -> None:
    source.claim_node("annotation", node.annotation)


@claim_roles.register
def _(node: ast.keyword, source: Source) -> None:
    if node.arg is not None:
        source.claim("keyword", source.begin(node), source.begin(node))
