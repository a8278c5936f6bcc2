"""The tokens of Python source code from `tokenize`, indexed by the positions of `ast`.

Comments, indentation and line ends are not tokens; a string literal is one token, shortened if it is long.
"""

import ast
import io
import tokenize
from collections.abc import Iterator

MAX_STRING = 14  # characters of a string literal, with quotes; longer literals are shortened
NOT_TOKENS = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
# Since Python 3.12 `tokenize` splits f-strings into parts, and since 3.14 t-strings.
STRING_STARTS = {getattr(tokenize, name) for name in ("FSTRING_START", "TSTRING_START") if hasattr(tokenize, name)}
STRING_ENDS = {getattr(tokenize, name) for name in ("FSTRING_END", "TSTRING_END") if hasattr(tokenize, name)}

Located = ast.stmt | ast.expr | ast.arg | ast.alias | ast.keyword | ast.excepthandler | ast.pattern
Position = tuple[int, int]  # line from 1, byte of its UTF-8 from 0, as `ast` counts


class Source:
    """The tokens of a file, and the roles claimed for them.

    Attributes:
        tokens: (N,) strings.
        tags: (N,) IOB2 tags.
        first: start position of a token -> its index.
        last: end position of a token -> its index.
        rows: (index of the first token, line of the file) of each logical line.
    """

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        self.first: dict[Position, int] = {}
        self.last: dict[Position, int] = {}
        self.rows: list[tuple[int, int]] = []
        lines = [] if text.isascii() else text.split("\n")
        starts_row = True
        for kind, string, start, end in whole_strings(text):
            if kind == tokenize.NEWLINE:
                starts_row = True
                continue
            if starts_row:
                self.rows.append((len(self.tokens), start[0]))
                starts_row = False
            self.first[in_bytes(start, lines)] = self.last[in_bytes(end, lines)] = len(self.tokens)
            self.tokens.append(string)
        self.tags = ["O"] * len(self.tokens)

    def begin(self, node: Located) -> int:
        """Return the index of the first token of a syntax node."""
        return self.first[node.lineno, node.col_offset]

    def end(self, node: Located) -> int:
        """Return the index of the last token of a syntax node."""
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
        if is_dotted(node):
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


def is_dotted(node: ast.expr) -> bool:
    """Return True if an expression consists only of names and dots."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)
