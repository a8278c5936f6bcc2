"""Generation with all of its options: the likeliest tokens, samples or a beam search, several prompts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from runner.common.errors import HydromelError

if TYPE_CHECKING:  # they import torch, which the message for options that exclude each other should not wait for
    from runner.inference.generation.language_model import LanguageModel, Prompts
    from runner.inference.generation.sampling import Choice, Continuation

_DRAWING = ("temperature", "top_k", "top_p", "samples")  # any of them selects sampling
_SEARCHING = ("nbest", "length_penalty")  # need a beam


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """The options of continuing prompts; the defaults always take the likeliest token.

    Attributes:
        max_tokens: maximum tokens of a text.
        temperature: divisor of log P, above 0; None: 1.
        top_k: sample among so many likeliest tokens; None: all.
        top_p: sample among the likeliest tokens whose probabilities sum to this, above 0 and at most 1; None: all.
        samples: texts sampled for each prompt; None: 1.
        seed: random seed of sampling; None: 0.
        beam: hypotheses of a beam search; None: no search.
        length_penalty: see `Beam`; None: 0.
        nbest: texts returned by a beam search for each prompt; None: 1.
    """

    max_tokens: int = 100
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    samples: int | None = None
    seed: int | None = None
    beam: int | None = None
    length_penalty: float | None = None
    nbest: int | None = None

    @property
    def draws(self) -> bool:
        """True if tokens are sampled."""
        return any(getattr(self, name) is not None for name in _DRAWING)

    def check(self, named: Callable[[str], str] = str) -> None:
        """Raise HydromelError for options that exclude each other; `named` returns an option as the user wrote it."""
        given = [name for name in (*_DRAWING, "seed") if getattr(self, name) is not None]
        if self.beam is not None and given:
            raise HydromelError(
                f"{named('beam')} and {named(given[0])} exclude each other, since a beam search does not sample; give "
                "one of them"
            )
        if self.beam is None:
            for name in _SEARCHING:
                if getattr(self, name) is not None:
                    raise HydromelError(f"{named(name)} needs a beam search; give {named('beam')} N as well")
        elif (self.nbest or 1) > self.beam:
            raise HydromelError(
                f"{named('nbest')} {self.nbest}: {named('beam')} {self.beam} finds at most {self.beam} texts; raise "
                f"{named('beam')}"
            )
        if self.seed is not None and not self.draws:
            *others, last = map(named, _DRAWING)
            raise HydromelError(f"{named('seed')} has no effect without sampling; give {', '.join(others)} or {last}")

    def choice(self, model: LanguageModel, numbers: Sequence[int]) -> Choice:
        """Return the choice of the next tokens of the prompts with these numbers, which determine the draws."""
        from runner.inference.generation.sampling import Sampling, keys_of, likeliest

        if not self.draws:
            return likeliest
        keys = keys_of(self.seed or 0, numbers, self.samples or 1, model.device)
        return Sampling(keys, 1.0 if self.temperature is None else self.temperature, self.top_k, self.top_p)

    def continued(self, model: LanguageModel, prompts: Prompts, first: int) -> list[list[Continuation]]:
        """Return the continuations of each prompt, the best first; `first` is the number of the first prompt."""
        from runner.inference.generation.beam import Beam, beam_search
        from runner.inference.generation.sampling import collect, steps

        if self.beam is not None:
            beam = Beam(self.beam, self.length_penalty or 0.0, self.nbest or 1)
            return beam_search(model, prompts, beam, self.max_tokens)
        samples = self.samples or 1
        choose = self.choice(model, range(first, first + len(prompts)))
        return collect(steps(model, prompts, samples, choose, self.max_tokens), model, len(prompts), samples)

    def at_a_time(self, batch_size: int) -> int:
        """Return the number of prompts in a batch of `batch_size` texts, at least those of one prompt."""
        return max(1, batch_size // max(self.samples or 1, self.beam or 1))


OPTION_NAMES = tuple(field.name for field in fields(GenerationOptions))


@dataclass(frozen=True)
class GeneratedText:
    """A continuation of a prompt as text."""

    text: str  # the prompt and its continuation
    log_p: float  # see `Continuation`
    score: float
    ended: bool


def generated(
    model: LanguageModel, prompts: Sequence[str], options: GenerationOptions, batch_size: int
) -> list[list[GeneratedText]]:
    """Return the continuations of each prompt, the best first, as `hydromel-generate` prints them.

    Raises:
        HydromelError: options that exclude each other, or a prompt that the model cannot read.
    """
    options.check()
    texts: list[list[GeneratedText]] = []
    at_a_time = options.at_a_time(batch_size)
    for first in range(0, len(prompts), at_a_time):
        batch = prompts[first : first + at_a_time]
        for prompt, continuations in zip(batch, options.continued(model, model.prompts(batch), first), strict=True):
            joined = [(prompt + model.text.joined(model.strings(c.tokens), behind=prompt), c) for c in continuations]
            texts.append([GeneratedText(text, c.log_p, c.score, c.ended) for text, c in joined])
    return texts
