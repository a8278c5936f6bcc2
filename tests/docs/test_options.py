"""docs/options.md is made from configs/, and says all that they say."""

from __future__ import annotations

from docs.options import CONFIGS, GROUPS, PAGE, options, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python docs/options.py"


def test_every_group_and_file_is_on_the_page() -> None:
    groups = {path.name for path in CONFIGS.iterdir() if path.is_dir() and any(path.glob("*.yaml"))}
    assert groups == {*GROUPS, "experiment"}
    text = page()
    for path in CONFIGS.glob("*/*.yaml"):
        assert f"`{path.parent.name}={path.stem}`" in text


def test_nested_options_have_their_whole_path() -> None:
    actual = {option.path: option for option in options(CONFIGS / "batching" / "bucketed.yaml", "batching")}
    assert actual["batching.plan.buckets"].default == "null"
    assert actual["batching.batch_size"].meaning == "Maximum number of examples per update"
    assert "train.epochs" in {option.path for option in options(CONFIGS / "train.yaml", "")}
