"""HTML pages, self-contained, with one base template, which follows the reader's dark or light scheme; and Markdown."""

from __future__ import annotations

import html
import re

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

from runner.common.printable import printable

_MARKUP = re.compile(r"[\\`*\[\]|~$]|\b_|_\b")  # characters that Markdown interprets; not underscores within a name


def page_template(package: str, name: str) -> Template:
    """Return a file in `templates` of a package, which may extend `base.html`. Values inserted into it are escaped."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("runner.common")]),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelled name is an error instead of an empty text
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def markdown_text(text: str) -> str:
    """Return `text` as one line of Markdown that shows it unchanged, without links, images and control characters."""
    return _MARKUP.sub(r"\\\g<0>", html.escape(printable(" ".join(text.split())), quote=False))
