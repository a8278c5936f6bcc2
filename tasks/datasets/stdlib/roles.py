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
import io
import tokenize
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from tasks.datasets.stdlib.source import parse

MAX_STRING = 14  # characters of a string literal, with quotes; longer literals are shortened
NOT_TOKENS = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
# Since Python 3.12 `tokenize` splits f-strings into parts, and since 3.14 t-strings.
STRING_STARTS = {getattr(tokenize, name) for name in ("FSTRING_START", "TSTRING_START") if hasattr(tokenize, name)}
STRING_ENDS = {getattr(tokenize, name) for name in ("FSTRING_END", "TSTRING_END") if hasattr(tokenize, name)}

Located = ast.stmt | ast.expr | ast.arg | ast.alias | ast.keyword | ast.excepthandler | ast.pattern
Position = tuple[int, int]  # line from 1, byte of its UTF-8 from 0, as `ast` counts


class Source:
    """The tokens of a file, and the roles claimed for them."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        self.first: dict[Position, int] = {}  # start of a token -> its index
        self.last: dict[Position, int] = {}  # end of a token -> its index
        self.rows: list[tuple[int, int]] = []  # index of the first token and line of the file, of each logical line
        lines = [] if text.isascii() else text.split("\n")
        starts_row = True
        for kind, string, start, end in whole_strings(text):
            if kind != tokenize.NEWLINE:
                if starts_row:
                    self.rows.append((len(self.tokens), start[0]))
                self.first[in_bytes(start, lines)] = self.last[in_bytes(end, lines)] = len(self.tokens)
                self.tokens.append(string)
            starts_row = kind == tokenize.NEWLINE
        self.tags = ["O"] * len(self.tokens)

    def begin(self, node: Located) -> int:
        """Return the index of a node's first token."""
        return self.first[node.lineno, node.col_offset]

    def end(self, node: Located) -> int:
        """Return the index of a node's last token."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.last[node.end_lineno, node.end_col_offset]

    def behind(self, word: str, index: int) -> int:
        """Return the index of the token after the first `word` at or after `index`."""
        return self.tokens.index(word, index) + 1

    def claim(self, role: str, first: int, last: int) -> None:
        """Give the tokens first..last a role, unless an outer node has already claimed them."""
        if self.tags[first] == "O":
            self.tags[first : last + 1] = [f"B-{role}"] + [f"I-{role}"] * (last - first)

    def claim_node(self, role: str, node: Located) -> None:
        self.claim(role, self.begin(node), self.end(node))

    def claim_name(self, role: str, node: ast.expr) -> None:
        """Claim a dotted name as one span; after any other expression (`f(x).name`) only the last name."""
        innermost = node
        while isinstance(innermost, ast.Attribute):
            innermost = innermost.value
        if isinstance(innermost, ast.Name):
            self.claim_node(role, node)
        elif isinstance(node, ast.Attribute):
            self.claim(role, self.end(node), self.end(node))


def whole_strings(text: str) -> Iterator[tuple[int, str, Position, Position]]:
    """Yield (kind, string, start, end) of each token, including `NEWLINE`; a string literal is one token.

    A literal of more than `MAX_STRING` characters, and every f-string, is shortened to its prefix and its quotes around
    `...`: `"..."`, `rb"..."`, `f"..."`. So an f-string is the same token in every Python version.
    """
    opened: list[tuple[str, Position]] = []  # a stack, since f-strings may nest
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
    """Shorten a string literal, or the opening of an f-string, by the rule of `whole_strings`."""
    body = literal.lstrip("rRbBuUfFtT")
    prefix = literal[: len(literal) - len(body)]
    if len(literal) <= MAX_STRING and "\n" not in literal and not set(prefix) & set("fFtT"):
        return literal
    quotes = body[:3] if body[:3] in ('"""', "'''") else body[:1]
    return f"{prefix}{quotes}...{quotes}"


def in_bytes(position: Position, lines: list[str]) -> Position:
    """Convert a position from characters (`tokenize`) to bytes (`ast`); `lines` is empty if they are the same."""
    line, character = position
    return (line, len(lines[line - 1][:character].encode())) if lines else position


class LogicalLine(NamedTuple):
    """One row: its tokens, their IOB2 tags, and the number of its first line in the file."""

    tokens: list[str]
    tags: list[str]
    line: int


def logical_lines(text: str) -> Iterator[LogicalLine]:
    """Yield the logical lines of a module's source.

    Raises:
        SyntaxError: the text is not valid in the running Python version.
    """
    level: list[ast.AST] = [parse(text)]
    source = Source(text)
    # Breadth first: outer nodes come first, and a claimed token is never claimed again, so the outermost role wins.
    while level:
        for node in level:
            claim_roles(node, source)
        inner = (node for node in level if type(node).__name__ not in ("JoinedStr", "TemplateStr"))  # single tokens
        level = [child for node in inner for child in ast.iter_child_nodes(node)]
    for (first, line), (end, _) in pairwise([*source.rows, (len(source.tokens), 0)]):
        yield LogicalLine(source.tokens[first:end], source.tags[first:end], line)


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
    word, role = ("class", "class") if isinstance(node, ast.ClassDef) else ("def", "function")
    name = source.behind(word, source.begin(node))
    source.claim(role, name, name)
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
