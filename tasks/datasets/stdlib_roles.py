"""Roles of the tokens of Python source: tokens from `tokenize`, spans from `ast`, tags in IOB2.

A row is a logical line: a statement, or the head of a compound statement, whatever number of physical lines it takes.
Comments, indentation and line ends are no tokens. The roles:

    function, class      the name that `def` or `class` defines
    parameter            a parameter's name, of `def` or `lambda`
    annotation           the whole annotation of a parameter, a variable or a result: `Optional [ int ]`
    base                 a base class (where it is a call, that is a callee)
    decorator            what stands behind `@`, without arguments
    module, imported     `from module import imported`, with leading dots; `alias` is the name behind `as`
    callee               what is called, with its dots: `os . path . join`; of `f(x).g(y)` `f` and, by itself, `g`
    keyword              the name of a keyword argument
    exception            what is raised, or named by `except`
    loop_variable        what `for` binds, in a loop or a comprehension; each name of a tuple by itself
    target               any other name or dotted name that is bound: `self . size = ...`, `with ... as file`, patterns
    attribute            any other dotted name: `self . size`; behind an expression the last name: `rows[0].size`

Where roles nest, the outermost wins. Names that are just read, literals, keywords and operators are `O`.
"""

import ast
import io
import tokenize
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

MAX_STRING = 14  # characters of a string literal, with quotes; a longer one is shortened
NOT_TOKENS = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
# since Python 3.12 (t-strings: 3.14) `tokenize` takes these apart
STRING_STARTS = {getattr(tokenize, name) for name in ("FSTRING_START", "TSTRING_START") if hasattr(tokenize, name)}
STRING_ENDS = {getattr(tokenize, name) for name in ("FSTRING_END", "TSTRING_END") if hasattr(tokenize, name)}

Position = tuple[int, int]  # line from 1, byte of its UTF-8 from 0, as `ast` counts


class LogicalLine(NamedTuple):
    """One row: its tokens, their IOB2 tags, and the line of the file on which it begins."""

    tokens: list[str]
    tags: list[str]
    line: int


class Source:
    """The tokens of a file, and the roles claimed on them.

    Attributes:
        tokens: (N,) strings.
        tags: (N,) IOB2.
        first: where a token begins -> its index.
        last: where a token ends -> its index.
        rows: (index of the first token, line of the file) of each logical line.
    """

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        self.first: dict[Position, int] = {}
        self.last: dict[Position, int] = {}
        self.rows: list[tuple[int, int]] = []
        lines = [] if text.isascii() else text.split("\n")
        begins_row = True
        for kind, string, start, end in whole_strings(text):
            if kind == tokenize.NEWLINE:
                begins_row = True
                continue
            if begins_row:
                self.rows.append((len(self.tokens), start[0]))
                begins_row = False
            self.first[in_bytes(start, lines)] = self.last[in_bytes(end, lines)] = len(self.tokens)
            self.tokens.append(string)
        self.tags = ["O"] * len(self.tokens)

    def begin(self, node: Any) -> int:
        """Index of the first token of a syntax node."""
        return self.first[node.lineno, node.col_offset]

    def end(self, node: Any) -> int:
        """Index of the last token of a syntax node."""
        return self.last[node.end_lineno, node.end_col_offset]

    def behind(self, word: str, index: int) -> int:
        """Index of the token behind the first `word` at or after `index`."""
        return self.tokens.index(word, index) + 1

    def claim(self, role: str, first: int, last: int) -> None:
        """Give the tokens first..last a role, unless an outer node has claimed them."""
        if self.tags[first] == "O":
            self.tags[first : last + 1] = [f"B-{role}"] + [f"I-{role}"] * (last - first)

    def claim_node(self, role: str, node: ast.AST) -> None:
        self.claim(role, self.begin(node), self.end(node))

    def claim_name(self, role: str, node: ast.AST) -> None:
        """A dotted name as one span; behind any other expression (`f(x).name`) the last name alone."""
        if is_dotted(node):
            self.claim_node(role, node)
        elif isinstance(node, ast.Attribute):
            self.claim(role, self.end(node), self.end(node))


def logical_lines(text: str) -> Iterator[LogicalLine]:
    """The logical lines of a module's source.

    Raises:
        SyntaxError: the text is no Python of the running version.
    """
    tree = ast.parse(text)
    source = Source(text)
    for node in outermost_first(tree):
        if claim := ROLES.get(type(node)):
            claim(source, node)
    for (first, line), (end, _) in pairwise([*source.rows, (len(source.tokens), 0)]):
        yield LogicalLine(source.tokens[first:end], source.tags[first:end], line)


def whole_strings(text: str) -> Iterator[tuple[int, str, Position, Position]]:
    """(kind, string, start, end) of each token, `NEWLINE` among them; string literals are whole, and short.

    A literal of more than `MAX_STRING` characters, or with fields to fill in, keeps its prefix and its quotes around
    `...`: `"..."`, `rb"..."`, `f"..."`. So an f-string is the same token in every version of Python.
    """
    opened: list[tuple[str, Position]] = []  # f-strings may nest
    for kind, string, start, end, _ in tokenize.generate_tokens(io.StringIO(text).readline):
        if kind in STRING_STARTS:
            opened.append((string, start))
        elif kind in STRING_ENDS:
            opening, start = opened.pop()
            if not opened:
                yield tokenize.STRING, shortened(opening), start, end
        elif kind == tokenize.STRING and not opened:
            yield kind, shortened(string), start, end
        elif kind not in NOT_TOKENS and not opened:
            yield kind, string, start, end


def shortened(literal: str) -> str:
    """A string literal, or the opening of an f-string, by the rule of `whole_strings`."""
    body = literal.lstrip("rRbBuUfFtT")
    prefix = literal[: len(literal) - len(body)]
    if len(literal) <= MAX_STRING and "\n" not in literal and not set(prefix) & set("fFtT"):
        return literal
    quotes = body[:3] if body[:3] in ('"""', "'''") else body[:1]
    return f"{prefix}{quotes}...{quotes}"


def in_bytes(position: Position, lines: list[str]) -> Position:
    """`tokenize` counts characters, `ast` bytes; `lines` is empty where that is the same."""
    line, character = position
    return (line, len(lines[line - 1][:character].encode())) if lines else position


def outermost_first(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node, level by level; what stands inside of f-strings is left out, as they are single tokens."""
    level = [tree]
    while level:
        yield from level
        inner = (node for node in level if type(node).__name__ not in ("JoinedStr", "TemplateStr"))
        level = [child for node in inner for child in ast.iter_child_nodes(node)]


def is_dotted(node: ast.AST) -> bool:
    """Whether an expression is names and dots alone."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


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
        begin = source.begin(node)
        source.claim("module", begin + 1, source.behind("import", begin) - 2)
    for name in node.names:
        begin, end = source.begin(name), source.end(name)
        source.claim(role, begin, begin + 2 * name.name.count("."))
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
    """A name or an attribute; what is read by itself (`O`) or before a call or a dot is left to other nodes."""
    if isinstance(node.ctx, ast.Store):
        source.claim_name("target", node)
    elif isinstance(node, ast.Attribute):
        source.claim_name("attribute", node)


def capture(source: Source, node: Any) -> None:
    """The name that a pattern binds is its last token; of a mapping's `**rest` the last but the brace."""
    if isinstance(node, ast.MatchMapping):
        end = source.end(node) - 1
        end -= source.tokens[end] == ","
        name = node.rest
    else:
        end, name = source.end(node), node.name
    if name is not None:
        source.claim("target", end, end)


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
    ast.MatchClass: lambda source, node: source.claim_name("callee", node.cls),
    ast.Call: lambda source, node: source.claim_name("callee", node.func),
    ast.AnnAssign: lambda source, node: source.claim_node("annotation", node.annotation),
    ast.keyword: lambda source, node: node.arg and source.claim("keyword", source.begin(node), source.begin(node)),
}
