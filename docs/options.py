"""Write docs/options.md, the list of all options by group, from the comments of configs/: python docs/options.py.

A YAML file documents itself: the comment lines at its top describe the choice, and the comment behind an option
describes that option. `page` returns the text; tests/docs/test_options.py checks that the file is up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent
CONFIGS = DOCS.parent / "configs"
PAGE = DOCS / "options.md"
ROOT_FILE = "train.yaml"
GROUPS = (
    "task",
    "dataset",
    "tokenizer",
    "features",
    "embedding",
    "encoder",
    "batching",
    "optimizer",
    "schedule",
    "metric",
    "tracker",
    "run_plots",
    "search",
)
OPTION = re.compile(r"^( *)([\w_]+):(?: (.*?))?(?: +# (.*))?$")
BASE = re.compile(r"^  - (?!_self_)(\w+)(?: +#.*)?$", re.MULTILINE)  # of a defaults list: another file of the group
HEAD = """# Options

Every option, by group, with its default. This page is made from the comments of [configs/](../configs) by
`python docs/options.py`.

- `hydromel GROUP=NAME` chooses a file of a group: `hydromel task=tag encoder=conv`.
- `hydromel GROUP.OPTION=VALUE` sets an option: `hydromel encoder=conv encoder.filters=200`.
- `hydromel --cfg job` prints the config that a command line gives, without running it.
- `hydromel --schema FILE` writes a JSON schema: an editor then completes and checks experiments, and files of a group
  such as `encoder` by `FILE#/$defs/encoder`.
- `null` means that there is no value. `???` marks an option that has to be given.
"""


@dataclass(frozen=True)
class Option:
    """An option of a file: its dotted path, its default as YAML and its description."""

    path: str
    default: str
    meaning: str


def page() -> str:
    """Return the whole page."""
    parts = [HEAD, _general(), *(_group(group) for group in GROUPS), _experiments()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def options(file: Path, prefix: str) -> list[Option]:
    """Return the options of a YAML file that have a description, those of the files that it is based on included."""
    bases = [file.with_name(f"{match[1]}.yaml") for match in BASE.finditer(file.read_text(encoding="utf-8"))]
    found = {option.path: option for base in bases for option in options(base, prefix)}
    return list((found | {option.path: option for option in _own_options(file, prefix)}).values())


def _own_options(file: Path, prefix: str) -> Iterator[Option]:
    """Yield the options that stand in the file itself, in its order."""
    above: list[tuple[int, str]] = []  # indentation and key of the mappings that enclose a line
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith(("#", "- ")) or (match := OPTION.match(line)) is None:
            continue
        depth, key, default, meaning = len(match[1]), match[2], (match[3] or "").strip(), match[4]
        while above and above[-1][0] >= depth:
            above.pop()
        if key == "_target_" and not above:
            continue  # the head of the file describes it
        names = [name for _, name in above] + ([] if key == "_target_" else [key])
        if meaning and default and key != "name":
            yield Option(".".join([*filter(None, [prefix]), *names]), default, meaning)
        if not default:
            above.append((depth, key))


def description(file: Path) -> str:
    """Return the comment at the top of a YAML file as one paragraph; a line that is a command ends like a sentence."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return re.sub(r"(data_dir=DATA) (?=[A-Z])", r"\1. ", " ".join(lines))


def _general() -> str:
    found = [each for each in options(CONFIGS / ROOT_FILE, "") if not each.path.startswith("hydra.")]
    rows = [[f"`{each.path}`", f"`{_cell(each.default)}`", _cell(each.meaning)] for each in found]
    return "## General\n\n" + _table(["option", "default", "meaning"], rows)


def _group(group: str) -> str:
    """Return a section: the choices of the group, then the options that they have."""
    files = sorted((CONFIGS / group).glob("*.yaml"))
    found = {file.stem: options(file, group) for file in files}
    merged: dict[tuple[str, str], dict[str, str]] = {}  # path and meaning -> choice -> default
    for choice, each in found.items():
        for option in each:
            merged.setdefault((option.path, option.meaning), {})[choice] = option.default
    rows = []
    for (path, meaning), defaults in sorted(merged.items(), key=lambda item: item[0][0]):
        values = sorted(set(defaults.values()))
        default = f"`{_cell(values[0])}`" if len(values) == 1 else "varies"
        rows.append([f"`{path}`", default, _cell(meaning), _choices(list(defaults), len(files))])
    table = _table(["option", "default", "meaning", "of"], rows) if rows else ""
    return f"## {group}\n\n{_list(group, files)}\n{table}"


def _experiments() -> str:
    files = sorted((CONFIGS / "experiment").glob("*.yaml"))
    return f"## experiment\n\nNamed configs that set options of the groups above.\n\n{_list('experiment', files)}"


def _list(group: str, files: list[Path]) -> str:
    lines = [f"- `{group}={file.stem}`" + (f": {_cell(text)}" if (text := description(file)) else "") for file in files]
    return "\n".join(lines) + "\n"


def _choices(names: list[str], n_files: int) -> str:
    shown = 6
    if len(names) == n_files:
        return "all"
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """Return text for Markdown: no column ends within a cell, and <unk> is no HTML."""
    return re.sub(r"(?<!`)(<\w+>)(?!`)", r"`\1`", text.replace("|", "\\|"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
