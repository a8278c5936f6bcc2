"""Errors that a user can fix: one line that says what was given, what is allowed, and where."""

import difflib
import re
from collections.abc import Iterable

# Parts of torch's messages about a kernel that was not built for this processor or this arithmetic
_MISSING = (
    "could not create a primitive descriptor",
    "not implemented for 'Half'",
    "not implemented for 'BFloat16'",
    "needs the cpu support",
    "No available kernel",
    "no kernel image is available",
)


_LONGEST_VALUE = 60  # most characters of a value in a message
# Messages of RuntimeError, which torch raises if the CPU, the GPU, oneDNN or cuBLAS gets no memory. Those of oneDNN are
# matched as a whole, since longer ones that begin like them have other causes.
_NO_MEMORY = re.compile(
    r"can(no|')t allocate memory|(not enough|out of) memory|bad_alloc|status_alloc_failed"
    r"|^could not (create|execute) a primitive$",
    re.IGNORECASE,
)


class HydromelError(Exception):
    """Bad input. Commands print its message as one line and exit with code 1, without a traceback."""


def without_credentials(text: str) -> str:
    """Return `text` without the user and password of the addresses in it, so that it can be printed and recorded."""
    return re.sub(r"(?<=://)[^\s/@'\"]*@", "", text)


def quoted(value: object) -> str:
    """Return the `repr` of a value that the user gave, shortened for a message."""
    try:
        return shortened(repr(value))
    except ValueError:  # Python converts no number of more than 4,300 digits
        return "a number of thousands of digits"
    except RecursionError:
        return "a value that is nested too deeply"


def shortened(text: str, most: int = _LONGEST_VALUE) -> str:
    """Return text for a message, cut to `most` characters, with control characters as escapes."""
    cut = text if len(text) <= most else f"{text[:most]}..."
    return cut if cut.isprintable() else repr(cut)[1:-1]


def did_you_mean(got: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean 'lstm'?` for the closest of `allowed`, or `.` when none is close."""
    close = closest(got, allowed)
    return "." if close is None else f"; did you mean '{close}'?"


def closest(got: str, allowed: Iterable[str]) -> str | None:
    """Return the closest of `allowed`; None when none is close."""
    return next(iter(difflib.get_close_matches(got[:_LONGEST_VALUE], list(allowed), n=1)), None)


def no_feature(feature: str, vocabs: Iterable[str]) -> HydromelError:
    """Return the error for a feature that the run does not have; `vocabs` are the names of all vocabularies."""
    features = sorted(set(vocabs) - {"target"})
    return HydromelError(
        f"feature '{feature}' is unknown (embedding.feature){did_you_mean(feature, features)} Allowed: "
        f"{', '.join(features)}; to add it, use features=[{','.join([*features, feature])}]"
    )


def unknown(what: str, got: str, allowed: Iterable[str], where: str) -> HydromelError:
    """Return the error for a name that is not allowed: `encoder 'rn' is unknown (...); did you mean 'rnn'? ...`."""
    options = sorted(allowed)
    return HydromelError(
        f"{what} '{shortened(got)}' is unknown ({where}){did_you_mean(got, options)} "
        f"Allowed: {', '.join(options) or 'none'}"
    )


def ran_out(error: BaseException) -> bool:
    """Return True for a lack of memory: MemoryError, or a RuntimeError of torch with such a message."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error).strip()) is not None


def out_of_memory(error: BaseException) -> str:
    """Return the error message of a command that `ran_out` of memory."""
    return f"out of memory ({(str(error).strip() or type(error).__name__).splitlines()[0]})"


def missing_kernel(error: BaseException) -> str:
    """Return torch's sentence on a kernel that this machine lacks; empty for any other error."""
    if not isinstance(error, RuntimeError) or not any(words in str(error) for words in _MISSING):
        return ""
    return str(error).splitlines()[0].split(". ")[0].rstrip(".")


def no_kernel(missing: str) -> str:
    """Return the error message of a command that stops because of a `missing_kernel`."""
    return (
        f"this machine has no kernel for what the model computes ({missing}); use another precision "
        "(precision=float32) or another module"
    )
