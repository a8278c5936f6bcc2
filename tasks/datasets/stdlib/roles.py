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


def claim_roles(node: ast.AST, source: Source) -> None:
    """Claim the tokens to which a node gives a role; most kinds of nodes give none."""
    match node:
        # A name that is only read stays `O` or belongs to another node.
        case ast.Name(ctx=ast.Store()) | ast.Attribute(ctx=ast.Store()):
            source.claim_name("target", node)
        case ast.Attribute():
            source.claim_name("attribute", node)
        case ast.Call(func=callee) | ast.MatchClass(cls=callee):
            source.claim_name("callee", callee)
        case ast.keyword(arg=str()):
            source.claim("keyword", source.begin(node), source.begin(node))
        case ast.arg():
            source.claim("parameter", source.begin(node), source.begin(node))
            if node.annotation is not None:
                source.claim_node("annotation", node.annotation)
        case ast.AnnAssign():
            source.claim_node("annotation", node.annotation)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            claim_definition(node, source)
        case ast.Import() | ast.ImportFrom():
            claim_imports(node, source)
        case ast.For() | ast.AsyncFor() | ast.comprehension():
            for bound in ast.walk(node.target):
                if isinstance(bound, ast.Name | ast.Attribute) and isinstance(bound.ctx, ast.Store):
                    source.claim_name("loop_variable", bound)
        case ast.Raise(exc=ast.expr() as exception):
            source.claim_name("exception", exception.func if isinstance(exception, ast.Call) else exception)
        case ast.ExceptHandler(type=ast.expr() as kind):
            for exception in kind.elts if isinstance(kind, ast.Tuple) else [kind]:
                source.claim_name("exception", exception)
            if node.name is not None:
                name = source.behind("as", source.end(kind))
                source.claim("target", name, name)
        case ast.MatchAs(name=str()) | ast.MatchStar(name=str()):
            source.claim("target", source.end(node), source.end(node))
        case ast.MatchMapping(rest=str()):
            end = source.end(node) - 1  # the name of `**rest` is the last token before the brace
            end -= source.tokens[end] == ","
            source.claim("target", end, end)


def claim_definition(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, source: Source) -> None:
    is_class = isinstance(node, ast.ClassDef)
    name = source.behind("class" if is_class else "def", source.begin(node))
    source.claim("class" if is_class else "function", name, name)
    for decorator in node.decorator_list:
        source.claim_node("decorator", decorator.func if isinstance(decorator, ast.Call) else decorator)
    if isinstance(node, ast.ClassDef):
        for base in node.bases:
            if not isinstance(base, ast.Call | ast.Starred):
                source.claim_node("base", base)
    elif node.returns is not None:
        source.claim_node("annotation", node.returns)


def claim_imports(node: ast.Import | ast.ImportFrom, source: Source) -> None:
    role = "module" if isinstance(node, ast.Import) else "imported"
    if isinstance(node, ast.ImportFrom):
        start = source.begin(node)
        source.claim("module", start + 1, source.behind("import", start) - 2)
    for name in node.names:
        start, end = source.begin(name), source.end(name)
        source.claim(role, start, start + 2 * name.name.count("."))
        if name.asname is not None:
            source.claim("alias", end, end)
