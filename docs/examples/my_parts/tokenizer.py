"""A tokenizer: the parts of identifiers, such as `read`, `Lines` and `2` in `readLines2`."""

from dataclasses import dataclass

import pyarrow as pa

from runner.text.tokenizers import WHITE_SPACE, TokenSpans, matches


@dataclass(frozen=True, kw_only=True)
class IdentifierParts:
    """Runs of letters, cut before capitals, runs of digits, and other characters.

    Args:
        symbols: false: only letters and digits are tokens.
    """

    symbols: bool

    def spans(self, texts: pa.Array) -> TokenSpans:
        """Return the places of the tokens in texts (B,)."""
        parts = r"\p{Lu}*\p{Ll}+|\p{Lu}+|\p{L}|\p{N}+"
        return matches(texts, rf"{parts}|[^{WHITE_SPACE}]" if self.symbols else parts)
