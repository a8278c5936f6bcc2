"""HTML pages: self-contained, with one base template, which follows the reader's dark or light scheme."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template


def page_template(package: str, name: str) -> Template:
    """Return a file in `templates` of a package, which may extend `base.html`. What it shows is escaped."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("runner.common")]),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelled name is an error instead of an empty text
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
