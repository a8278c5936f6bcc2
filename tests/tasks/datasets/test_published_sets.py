"""Every published set, read through its config, has the counts that its README states."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

pytestmark = pytest.mark.data


def tokens(table: pa.Table) -> list[str]:
    return table["tokens"].combine_chunks().flatten().to_pylist()


def tags(table: pa.Table) -> list[str]:
    return table["tags"].combine_chunks().flatten().to_pylist()


def lengths(table: pa.Table) -> np.ndarray:
    return np.diff(table["tokens"].combine_chunks().offsets.to_numpy())


def shape(table: pa.Table) -> tuple[int, int]:
    return table.num_rows, len(tokens(table))


def check_lengths(table: pa.Table, mean: float, median: float, p95: float, longest: int) -> None:
    result = lengths(table)
    assert result.mean() == pytest.approx(mean, abs=0.051)
    assert np.median(result) == pytest.approx(median, abs=0.5)
    assert np.percentile(result, 95) == pytest.approx(p95, abs=1)
    assert result.max() == longest


def test_ud_ewt(corpus, published):
    splits = corpus("ud_ewt", published).read()
    assert {name: shape(table) for name, table in splits.items()} == {
        "train": (12_544, 204_577),
        "valid": (2_001, 25_147),
        "test": (2_077, 25_094),
    }
    for table in splits.values():
        assert len(set(tags(table))) == 17
        assert all(len(table[name].combine_chunks().flatten()) == len(tokens(table)) for name in ("xpos", "lemma"))
    check_lengths(splits["train"], 16.3, 14, 39, 159)
    first = splits["train"].slice(0, 1).to_pylist()[0]
    assert first["tokens"][:4] == ["Al", "-", "Zaman", ":"]
    assert first["tags"][:4] == ["PROPN", "PUNCT", "PROPN", "PUNCT"]


def test_wnut17(corpus, published):
    splits = corpus("wnut17", published).read()
    assert {name: shape(table) for name, table in splits.items()} == {
        "train": (3_394, 62_730),
        "valid": (1_009, 15_733),
        "test": (1_287, 23_394),
    }
    actual = {name: tags(table) for name, table in splits.items()}
    assert {name: sum(tag.startswith("B-") for tag in some) for name, some in actual.items()} == {
        "train": 1_975,
        "valid": 836,
        "test": 1_079,
    }
    assert {name: len(set(some)) for name, some in actual.items()} == {"train": 13, "valid": 13, "test": 13}
    check_lengths(splits["test"], 18.2, 15, 42, 105)
    assert any("\ufeff" in token for token in tokens(splits["valid"])), "U+FEFF inside of a token stays"


def test_twitter_pos(corpus, published):
    splits = corpus("twitter_pos", published).read()
    splits["daily"] = corpus("twitter_pos", published, test="tagging/twitter_pos/daily547.conll").read()["test"]
    assert {name: (*shape(table), len(set(tags(table)))) for name, table in splits.items()} == {
        "train": (1_000, 14_619, 25),
        "valid": (327, 4_823, 23),
        "test": (500, 7_152, 23),
        "daily": (547, 7_707, 25),
    }


CLASSIFIED = {
    "sst2": {
        "train": (6_920, None, {"0": 3_310, "1": 3_610}),
        "valid": (872, 17_046, {"0": 428, "1": 444}),
        "test": (1_821, 35_023, {"0": 912, "1": 909}),
    },
    "sst5": {
        "train": (8_544, 163_566, dict(zip("01234", (1_092, 2_218, 1_624, 2_322, 1_288), strict=True))),
        "valid": (1_101, 21_274, dict(zip("01234", (139, 289, 229, 279, 165), strict=True))),
        "test": (2_210, 42_405, dict(zip("01234", (279, 633, 389, 510, 399), strict=True))),
    },
    "trec_dev": {
        "train": (5_000, 51_127, dict(zip("012345", (1_064, 1_142, 79, 1_135, 766, 814), strict=True))),
        "valid": (452, 4_508, dict(zip("012345", (98, 108, 7, 88, 69, 82), strict=True))),
        "test": (500, 3_758, dict(zip("012345", (138, 94, 9, 65, 81, 113), strict=True))),
    },
    "ag_news_sample": {
        "train": (4_000, 152_125, dict(zip("1234", (1_020, 1_006, 1_020, 954), strict=True))),
        "valid": (999, 37_785, dict(zip("1234", (239, 251, 260, 249), strict=True))),
        "test": (7_600, 286_690, dict.fromkeys("1234", 1_900)),
    },
    "movie_reviews": {
        "train": (1_600, 1_193_539, {"neg": 800, "pos": 800}),
        "valid": (200, 146_426, {"neg": 100, "pos": 100}),
        "test": (200, 152_716, {"neg": 100, "pos": 100}),
    },
}


@pytest.mark.parametrize("name", CLASSIFIED)
def test_classified_sets_with_three_files(name, corpus, published):
    splits = corpus(name, published).read()
    assert list(splits) == ["train", "valid", "test"]
    for split, (examples, n_tokens, labels) in CLASSIFIED[name].items():
        table = splits[split]
        assert table.num_rows == examples
        assert n_tokens is None or len(tokens(table)) == n_tokens
        assert Counter(table["label"].to_pylist()) == labels


@pytest.mark.parametrize(("name", "n_tokens"), [("sst2", 133_555), ("sst5", 163_566)])
def test_no_break_spaces_separate(name, n_tokens, corpus, published):
    actual = tokens(corpus(name, published).read()["train"])
    assert len(actual) == n_tokens
    assert not any("\xa0" in token for token in actual)


def test_sst_trees_hold_the_sentences_and_labels_of_sst5(corpus, published):
    phrases = corpus("sst_trees", published, phrases="all").read()
    assert [phrases[name].num_rows for name in ("train", "valid", "test")] == [318_582, 41_447, 82_600]
    sentences = corpus("sst_trees", published, phrases="none").read()
    flat = corpus("sst5", published).read()
    for name, table in sentences.items():
        assert Counter(table["label"].to_pylist()) == CLASSIFIED["sst5"][name][2]
        assert shape(table) == shape(flat[name])
    usual = corpus("sst_trees", published).read()
    assert [usual[name].num_rows for name in ("train", "valid", "test")] == [318_582, 1_101, 2_210]


def test_sst2_phrases_hold_the_sentences_and_labels_of_sst2(corpus, published):
    sentences = corpus("sst2_phrases", published, phrases="none").read()
    flat = corpus("sst2", published).read()
    for name, table in sentences.items():
        assert Counter(table["label"].to_pylist()) == CLASSIFIED["sst2"][name][2]
        assert shape(table) == shape(flat[name])
    usual = corpus("sst2_phrases", published).read()
    assert [usual[name].num_rows for name in ("train", "valid", "test")] == [98_794, 872, 1_821]


def test_trec_original(corpus, published):
    names = ("DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM")
    whole = corpus("trec", published, valid_fraction=0.0).read()
    assert list(whole) == ["train", "test"]
    assert [Counter(whole["train"]["label"].to_pylist())[name] for name in names] == [1162, 1250, 86, 1223, 835, 896]
    assert [Counter(whole["test"]["label"].to_pylist())[name] for name in names] == [138, 94, 9, 65, 81, 113]
    cut = corpus("trec", published).read()
    assert cut["train"].num_rows + cut["valid"].num_rows == 5_452
    assert 450 < cut["valid"].num_rows < 650
    fine = corpus("trec", published, label_part="fine").read()
    assert len({*fine["train"]["label"].to_pylist(), *fine["valid"]["label"].to_pylist()}) == 50


@pytest.mark.parametrize(
    ("name", "examples", "n_tokens", "labels"),
    [
        ("mr", 10_662, 224_041, {"0": 5_331, "1": 5_331}),
        ("subj", 10_000, 240_571, {"0": 5_000, "1": 5_000}),
    ],
)
def test_sets_without_splits(name, examples, n_tokens, labels, corpus, published):
    splits = corpus(name, published).read()
    assert sum(table.num_rows for table in splits.values()) == examples
    assert sum(len(tokens(table)) for table in splits.values()) == n_tokens
    counted = sum((Counter(table["label"].to_pylist()) for table in splits.values()), Counter())
    assert counted == labels
    for split in ("valid", "test"):
        assert 0.08 < splits[split].num_rows / examples < 0.12
        assert set(splits[split]["label"].to_pylist()) == set(labels), "a file in label order is not cut in order"


def test_newsgroups4(corpus, published):
    splits = corpus("newsgroups4", published, valid_fraction=0.0).read()
    assert {name: shape(table) for name, table in splits.items()} == {
        "train": (2_257, 696_212),
        "test": (1_502, 515_136),
    }
    assert sorted(Counter(splits["train"]["label"].to_pylist()).values()) == [480, 584, 594, 599]
    assert sorted(Counter(splits["test"]["label"].to_pylist()).values()) == [319, 389, 396, 398]
    check_lengths(splits["test"], 343.0, 187, 979, 9_255)


def test_wikitext2(corpus, published):
    splits = corpus("wikitext2", published).read()
    assert {name: shape(table) for name, table in splits.items()} == {
        "train": (36_718, 2_051_910),
        "valid": (3_760, 213_886),
        "test": (4_358, 241_211),
    }
    assert len(set(tokens(splits["train"])) | {"<eos>"}) == 33_278
    written = corpus("wikitext2", published, blank_lines="drop").read()["train"]
    assert len(tokens(written)) == 2_051_910
    check_lengths(written, 86.3, 74, 237, 699)


@pytest.mark.parametrize(
    ("name", "lines", "characters", "distinct"),
    [("tinyshakespeare", 40_000, 1_115_394, 65), ("war_and_peace", 62_016, 3_196_214, 82)],
)
def test_character_sets(name, lines, characters, distinct, corpus, published):
    splits = corpus(name, published).read()
    n_lines = sum(table.num_rows for table in splits.values())
    actual = [token for table in splits.values() for token in tokens(table)]
    assert n_lines == lines
    assert len(actual) + n_lines == characters
    assert len({*actual, "\n"}) == distinct
    file = next(published.rglob(f"{name}/input.txt")).read_text(encoding="utf-8")
    rebuilt = ["".join(row) for split in ("train", "valid", "test") for row in splits[split]["tokens"].to_pylist()]
    assert "\n".join(rebuilt) + "\n" == file, "cut in order, and nothing lost"
    assert (lengths(splits["train"]) + 1).sum() / characters == pytest.approx(0.9, abs=0.001)


@pytest.mark.parametrize(("name", "words"), [("tinyshakespeare", 202_651), ("war_and_peace", 561_693)])
def test_words_of_character_sets(name, words, corpus, published):
    splits = corpus(name, published, unit="word").read()
    assert sum(len(tokens(table)) for table in splits.values()) == words
