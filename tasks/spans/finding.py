"""Detect the span scheme of tags, and check tags against a given scheme.

Shapes: B rows, N tokens in total.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.text.arrow import mask_of
from tasks.spans.table import AUTO, MALFORMED, ROLES, SCHEMES, Mode, Scheme, SpanScheme, headline_mode
from tasks.spans.tags import SpanTags, illegal_positions, spans

log = logging.getLogger(__name__)
_SHOWN = 3  # most candidates in a message
_UNUSUAL = re.compile(rf"([{''.join(ROLES)}])[-_:./|].+", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Tagging:
    """The tags of some rows."""

    tags: pa.StringArray  # (N,) without nulls
    offsets: IntArray  # (B+1,) start of each row, and N
    at: Callable[[int], str]  # names a position (file and line) in messages

    @classmethod
    def of(cls, tags: pa.StringArray, offsets: IntArray, at: Callable[[int], str]) -> Tagging:
        """Return the tags without nulls. A null is no target, so the tags around it become neighbours."""
        if not tags.null_count:
            return cls(tags, offsets, at)
        kept = mask_of(tags.is_valid())
        places = np.flatnonzero(kept)
        return cls(tags.drop_null(), np.append(0, kept.cumsum())[offsets], lambda position: at(int(places[position])))

    @cached_property
    def distinct(self) -> list[str]:
        """The distinct tags."""
        return list(self.tags.unique().to_pylist())

    def fits(self, scheme: Scheme) -> bool:
        """Return True if all tags belong to the scheme, and some of them to spans.

        Tags without types must have several different letters: a single one is as likely a plain tag.
        """
        parsed = SpanTags.of(self.distinct, scheme).within(scheme)
        enough = len(set(parsed.letters) - {""}) > 1 if parsed.types == ("",) else bool(parsed.types)
        return enough and not (parsed.prefix == MALFORMED).any()

    def odd(self, scheme: Scheme) -> list[str]:
        """Return the distinct tags that are not of the scheme."""
        parsed = SpanTags.of(self.distinct, scheme).within(scheme)
        return [tag for tag, role in zip(self.distinct, parsed.prefix, strict=True) if role == MALFORMED]

    def illegal(self, scheme: Scheme) -> IntArray:
        """Return the positions of the illegal tags."""
        return illegal_positions(self.tags, self.offsets, scheme)

    def spans(self, scheme: Scheme, mode: Mode = "default") -> tuple[list[int], list[int], list[str]]:
        """Return the starts, ends (exclusive) and types of the spans."""
        encoded = self.tags.dictionary_encode()
        parsed = SpanTags.of(encoded.dictionary.to_pylist(), scheme)
        starts, ends, kinds = spans(encoded.indices.to_numpy(), self.offsets, parsed, scheme, mode)
        return starts.tolist(), ends.tolist(), [parsed.types[kind] for kind in kinds]

    def describe(self, position: int) -> str:
        """Return a text with the place of an illegal tag, the tag, and the tag before it."""
        before = f"after '{self.tags[position - 1].as_py()}'"
        context = "at the start of a sentence" if position in self.offsets else before
        return f"{self.at(position)}: tag '{self.tags[position].as_py()}' {context}"


def find_scheme(parts: Iterable[Tagging]) -> Scheme | None:
    """Return the scheme in which all tags are legal (None: the tags are plain), and log it.

    If tags are legal in several schemes that read the same spans, the first of these is returned. The tags come in
    `parts`, which are iterated over several times.

    Raises:
        HydromelError: the schemes in which the tags are legal read different spans; or tags look like those of spans,
            but are legal in no scheme.
    """
    kinds = _kinds(parts)
    fitting = [scheme for scheme in SCHEMES if kinds.fits(scheme)]
    wrong = {scheme: _illegal(parts, scheme) for scheme in fitting}
    legal = [scheme for scheme in fitting if not wrong[scheme][0]]
    if legal:
        first, *others = legal
        n_spans, types = 0, set[str]()
        for part in parts:
            reading = part.spans(first)
            n_spans, types = n_spans + len(reading[0]), types | {*reading[2]}
            if differing := [scheme for scheme in others if part.spans(scheme) != reading]:
                raise HydromelError(
                    f"{part.at(0)}: the tags from here on are legal in {first} and in {' and '.join(differing)}, but "
                    f"mean different spans; give dataset.span_scheme={first}, or the other"
                )
        same = f"; {', '.join(others)} would read the same spans" if others else ""
        shown = _shown([name or "of one type" for name in sorted(types)])
        log.info(
            "span_scheme=%s, worked out from the tags of train: %s spans (%s)%s", first, f"{n_spans:,}", shown, same
        )
        return first
    if spans_without_scheme := _looks_like_spans(kinds.distinct):
        raise HydromelError(_question(parts, kinds, spans_without_scheme, wrong))
    if unusual := _unusual(kinds.distinct):
        raise HydromelError(
            f"{_first_place(parts, unusual)}: tag '{unusual}' looks like that of a span, but all span schemes have a "
            "capital letter and a hyphen (B-PER or PER-B), and O outside of spans; rewrite the tags, or keep plain "
            "tags with dataset.span_scheme=null"
        )
    log.info("span_scheme=null: the tags of train (%s) are plain tags, not those of spans", _shown(kinds.distinct))
    return None


def _kinds(parts: Iterable[Tagging]) -> Tagging:
    """Return the distinct tags of all parts, as if they were a row."""
    distinct = [*dict.fromkeys(tag for part in parts for tag in part.distinct)]
    return Tagging(pa.array(distinct, pa.string()), np.array([0, len(distinct)]), str)


def _illegal(parts: Iterable[Tagging], scheme: Scheme) -> tuple[int, str]:
    """Return the number of illegal tags, and a description of the first one."""
    count, first = 0, ""
    for part in parts:
        places = part.illegal(scheme)
        first = part.describe(int(places[0])) if len(places) and not count else first
        count += len(places)
    return count, first


def _first_place(parts: Iterable[Tagging], tag: str) -> str:
    """Return the place of the first occurrence of a tag."""
    return next(part.at(place) for part in parts if (place := part.tags.index(tag).as_py()) >= 0)


def _looks_like_spans(distinct: list[str]) -> Scheme | None:
    """Return a scheme of the form (letter before or after the type) that at least half of the distinct tags have."""
    other = [tag for tag in distinct if tag != "O"]
    forms: tuple[Scheme, Scheme] = ("IOB2", "IOB2-suffix")
    for form in forms:
        parsed = SpanTags.of(distinct, form)
        of_spans = sum(letter != "" for letter in parsed.letters)
        # A type that ends in a letter after a hyphen is also common among plain tags; they have no O.
        if parsed.types not in ((), ("",)) and 2 * of_spans >= len(other) and (form == "IOB2" or "O" in distinct):
            return form
    return None


def _unusual(distinct: list[str]) -> str | None:
    """Return a tag if all tags but O look like those of spans, but with another mark than a hyphen or small letters."""
    of_spans = [tag for tag in distinct if tag not in ("O", "o")]
    letters = {match[1] for tag in of_spans if (match := _UNUSUAL.fullmatch(tag))}
    alike = len(of_spans) < len(distinct) and all(map(_UNUSUAL.fullmatch, of_spans))
    return of_spans[0] if alike and len(letters) > 1 else None


def _question(parts: Iterable[Tagging], kinds: Tagging, form: Scheme, wrong: dict[Scheme, tuple[int, str]]) -> str:
    """Return the message for tags that look like those of spans: the nearest schemes, and what to do."""
    plain = "dataset.span_scheme=null keeps plain tags"
    if not wrong:
        layouts = [scheme for scheme, layout in SCHEMES.items() if layout.suffixed == SCHEMES[form].suffixed]
        nearest = min(layouts, key=lambda scheme: (len(kinds.odd(scheme)), _illegal(parts, scheme)[0]))
        odd = kinds.odd(nearest)
        others = _shown([tag for tag in kinds.distinct if tag not in odd])
        return (
            f"{_first_place(parts, odd[0])}: tag '{odd[0]}' and the other tags of train belong to no common span "
            f"scheme: {nearest} has {others}, but not {_shown(odd)}; correct the tags that are wrong, or leave out "
            f"those that are not tags with 'task.ignore=[{','.join(odd[:_SHOWN])}]'; {plain}"
        )
    nearest, *further = sorted(wrong, key=lambda scheme: wrong[scheme][0])[:_SHOWN]
    count, first = wrong[nearest]
    also = "".join(f", {scheme} by {wrong[scheme][0]:,}" for scheme in further)
    n_tags = sum(len(part.tags) for part in parts)
    return (
        f"{first} is illegal in {nearest}, and no span scheme allows all tags of train: {nearest} is broken by "
        f"{count:,} of {n_tags:,}{also}; correct them, or keep them with dataset.span_scheme={nearest} "
        f"dataset.strict_tags=false; {plain}"
    )


@dataclass(frozen=True)
class TagRules:
    """The rules by which the tags of a file are checked."""

    scheme: SpanScheme
    strict: bool  # False: illegal tags are kept and counted in the log
    ignored: Sequence[str | int] = ()  # values that are not tags, like missing ones


def check_tags(tags: pa.Array, offsets: IntArray, rules: TagRules, at: Callable[[int], str]) -> None:
    """Check the tags (N,) of sentences that start at `offsets` (B+1,): none may be illegal (`illegal_positions`).

    Without a scheme, or before it is worked out, there is nothing to check. Unless `strict`, illegal tags are kept and
    counted in the log, except tags of another scheme, whose spans would be lost. Messages name the place
    `at(position)`. Missing tags and ignored ones are left out.

    Raises:
        HydromelError: the first illegal tag, if strict; otherwise the first one with a letter that the scheme lacks.
    """
    scheme, strict = rules.scheme, rules.strict
    if scheme is None or scheme == AUTO:
        return
    if rules.ignored:
        named = pa.array([str(tag) for tag in rules.ignored], pa.string())
        tags = pc.if_else(pc.is_in(tags, value_set=named), pa.scalar(None, pa.string()), tags)
    tagging = Tagging.of(tags, offsets, at)
    places = tagging.illegal(scheme)
    if not len(places):
        return
    parsed = SpanTags.of(tagging.distinct, scheme)
    odd = [tag for tag, role in zip(tagging.distinct, parsed.prefix, strict=True) if role == MALFORMED]
    foreign = [tag for tag in tagging.odd(scheme) if tag not in odd]
    first = min(tagging.tags.index(tag).as_py() for tag in foreign) if foreign and not strict else int(places[0])
    what = f"{tagging.describe(first)} is illegal in {scheme}"
    if not strict and not foreign:
        log.warning("%s; %d illegal tags are kept%s", what, len(places), _consequence(tagging, scheme, odd))
        return
    legal = next((other for other in SCHEMES if tagging.fits(other) and not len(tagging.illegal(other))), None)
    advice = "set the file's scheme with dataset.span_scheme"
    if legal is not None:
        advice = f"all tags of the file are legal in {legal}: set dataset.span_scheme={legal}"
    elif not foreign:
        if odd:
            advice += f", or leave out values that are not tags with 'task.ignore=[{','.join(odd[:_SHOWN])}]'"
        advice += ", or keep such tags with dataset.strict_tags=false"
    raise HydromelError(f"{what} (illegal tags in the file: {len(places)}); {advice}")


def _consequence(tagging: Tagging, scheme: Scheme, odd: list[str]) -> str:
    """Return what becomes of illegal tags that are kept, as the end of a sentence."""
    end = ""
    if odd:
        count = np.count_nonzero(mask_of(pc.is_in(tagging.tags, pa.array(odd))))
        end += (
            f"; {count:,} of them are not tags of spans ({_shown(odd)}) and count as O, unless task.ignore names them"
        )
    if headline_mode(scheme) == "strict":
        of_spans, counted = len(tagging.spans(scheme, "default")[0]), len(tagging.spans(scheme, "strict")[0])
        end += f"; {counted:,} of {of_spans:,} spans are whole, and only these count in {scheme}"
    return end


def _shown(tags: list[str]) -> str:
    return ", ".join(tags[:5]) + (", ..." if len(tags) > 5 else "")
