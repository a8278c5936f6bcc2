"""The error for a private API that an installed version of a library does not have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from runner.common.errors import HydromelError


@contextmanager
def private_api(package: str, checked: str) -> Iterator[None]:
    """Turn a failed import or attribute access within the context into one HydromelError.

    `checked` is the version of `package` that the access was checked with.
    """
    try:
        yield
    except (ImportError, AttributeError) as error:
        raise HydromelError(
            f"{package} {metadata.version(package)} does not have what Hydromel uses ({error}); "
            f"install the version it was checked with: pip install '{package}=={checked}'"
        ) from error
