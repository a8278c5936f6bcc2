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
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

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
        if claim := ROLES.get(type(node)):
            claim(source, node)
    for (first, line), (end, _) in pairwise([*source.rows, (len(source.tokens), 0)]):
        yield LogicalLine(source.tokens[first:end], source.tags[first:end], line)


def outermost_first(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes in breadth-first order, except those inside f-strings, which are single tokens."""
    level = [tree]
    while level:
        yield from level
        inner = (node for node in level if type(node).__name__ not in ("JoinedStr", "TemplateStr"))
        level = [child for node in inner for child in ast.iter_child_nodes(node)]


def function(source: Source, node: Any) -> None:
    name = source.behind("def", source.begin(node))
    source.claim("function", name, name)
    decorators(source, node)
    if node.returns is not None:
        source.claim_node("annotation", node.returns)


def class_(source: Source, node: Any) -> None:
    name = source.begin(node) + 1
    source.claim("class", name, name)
    decorators(source, node)
    for base in node.bases:
        if not isinstance(base, (ast.Call, ast.Starred)):
            source.claim_node("base", base)


def decorators(source: Source, node: Any) -> None:
    for decorator in node.decorator_list:
        source.claim_node("decorator", decorator.func if isinstance(decorator, ast.Call) else decorator)


def parameter(source: Source, node: Any) -> None:
    source.claim("parameter", source.begin(node), source.begin(node))
    if node.annotation is not None:
        source.claim_node("annotation", node.annotation)


def imports(source: Source, node: Any) -> None:
    role = "module" if isinstance(node, ast.Import) else "imported"
    if isinstance(node, ast.ImportFrom):
        start = source.begin(node)
        source.claim("module", start + 1, source.behind("import", start) - 2)
    for name in node.names:
        start, end = source.begin(name), source.end(name)
        source.claim(role, start, start + 2 * name.name.count("."))
        if name.asname is not None:
            source.claim("alias", end, end)


def raised(source: Source, node: Any) -> None:
    if node.exc is not None:
        source.claim_name("exception", node.exc.func if isinstance(node.exc, ast.Call) else node.exc)


def handler(source: Source, node: Any) -> None:
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type else []
    for exception in caught:
        source.claim_name("exception", exception)
    if node.name is not None:
        name = source.behind("as", source.end(node.type))
        source.claim("target", name, name)


def loop(source: Source, node: Any) -> None:
    for bound in ast.walk(node.target):
        if isinstance(getattr(bound, "ctx", None), ast.Store):
            source.claim_name("loop_variable", bound)


def bound(source: Source, node: Any) -> None:
    """Claim a bound name or an attribute; a name that is only read stays `O` or belongs to another node."""
    if isinstance(node.ctx, ast.Store):
        source.claim_name("target", node)
    elif isinstance(node, ast.Attribute):
        source.claim_name("attribute", node)


def capture(source: Source, node: Any) -> None:
    """Claim the name that a pattern binds: its last token, or for a mapping's `**rest` the last before the brace."""
    if isinstance(node, ast.MatchMapping):
        end = source.end(node) - 1
        end -= source.tokens[end] == ","
        name = node.rest
    else:
        end, name = source.end(node), node.name
    if name is not None:
        source.claim("target", end, end)


def match_class(source: Source, node: Any) -> None:
    source.claim_name("callee", node.cls)


def call(source: Source, node: Any) -> None:
    source.claim_name("callee", node.func)


def annotated(source: Source, node: Any) -> None:
    source.claim_node("annotation", node.annotation)


def keyword(source: Source, node: Any) -> None:
    if node.arg is not None:
        source.claim("keyword", source.begin(node), source.begin(node))


ROLES: dict[type[ast.AST], Callable[[Source, Any], None]] = {
    ast.FunctionDef: function,
    ast.AsyncFunctionDef: function,
    ast.ClassDef: class_,
    ast.arg: parameter,
    ast.Import: imports,
    ast.ImportFrom: imports,
    ast.Raise: raised,
    ast.ExceptHandler: handler,
    ast.For: loop,
    ast.AsyncFor: loop,
    ast.comprehension: loop,
    ast.Name: bound,
    ast.Attribute: bound,
    ast.MatchAs: capture,
    ast.MatchStar: capture,
    ast.MatchMapping: capture,
    ast.MatchClass: match_class,
    ast.Call: call,
    ast.AnnAssign: annotated,
    ast.keyword: keyword,
}
