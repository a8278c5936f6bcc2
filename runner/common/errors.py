"""Errors that a user can mend: one line, saying what was got, what is allowed, and where."""

import difflib
from collections.abc import Iterable


class HydromelError(Exception):
    """Bad input. Commands print its message as one line and exit with code 1, without a traceback."""


def did_you_mean(got: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'lstm'?` for the closest of `allowed`, or `.` when none is close."""
    close = difflib.get_close_matches(got, list(allowed), n=1)
    return f"; did you mean '{close[0]}'?" if close else "."


def no_feature(feature: str, vocabs: Iterable[str]) -> HydromelError:
    """The error of an embedding whose feature the run does not have; `vocabs` are also of the answers, `target`."""
    there_are = sorted(set(vocabs) - {"target"})
    return HydromelError(
        f"feature '{feature}' is unknown (embedding.feature){did_you_mean(feature, there_are)} Allowed: "
        f"{', '.join(there_are)}; features=[{','.join([*there_are, feature])}] would name it too"
    )


def unknown(what: str, got: str, allowed: Iterable[str], where: str) -> HydromelError:
    """The error for a name that is not one of `allowed`: `encoder 'rn' is unknown (...); did you mean 'rnn'? ...`."""
    options = sorted(allowed)
    return HydromelError(
        f"{what} '{got}' is unknown ({where}){did_you_mean(got, options)} Allowed: {', '.join(options) or 'none'}"
    )
