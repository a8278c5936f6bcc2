"""Hub data sets: `load_dataset` on local folders with the Hub's layout, and without a network."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from runner.common.errors import HydromelError
from runner.text import blocks
from tasks.datasets import hub

datasets = pytest.importorskip("datasets")

CONFIGS = Path(__file__).parents[3] / "configs" / "dataset"
HUB_CONFIGS = sorted(
    path.stem
    for path in CONFIGS.glob("*.yaml")
    if path.stem != "hub" and OmegaConf.load(path)._target_.endswith("HubDataset")
)
TAGS = datasets.List(datasets.ClassLabel(names=["O", "B-X", "I-X"]))
SENTENCES = {"tokens": [["a", "b c"], [], ["d"]], "ner_tags": [[1, 2], [], [0]], "xpos": [["x", "y"], [], ["z"]]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    """Return `folder(features, train=columns, ...)`, which writes parquet files with the Hub's layout."""

    def write(features, **splits):
        root = tmp_path / "owner" / "set"
        (root / "data").mkdir(parents=True, exist_ok=True)
        for split, columns in splits.items():
            data = datasets.Dataset.from_dict(columns, features=features)
            data.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
        return str(root)

    return write


@pytest.fixture
def tagged(folder):
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": TAGS,
            "xpos": datasets.List(datasets.Value("string")),
        }
    )
    return folder(
        features, train=SENTENCES, validation=SENTENCES, test={key: some[:1] for key, some in SENTENCES.items()}
    )


@pytest.fixture
def classified(folder):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    columns = {"text": [f" word{number}  two " for number in range(200)], "label": [0, 1] * 100}
    return folder(features, train=columns, test={"text": ["", "a\xa0b c"], "label": [1, 0]})


def test_lists_and_class_names(corpus, tagged):
    splits = corpus(
        "conll2003", None, path=tagged, columns={"tokens": "tokens", "tags": "ner_tags", "xpos": "xpos"}
    ).read()
    assert list(splits) == ["train", "valid", "test"]
    assert splits["train"].to_pylist() == [
        {"tokens": ["a", "b c"], "tags": ["B-X", "I-X"], "xpos": ["x", "y"], "line": 1},
        {"tokens": [], "tags": [], "xpos": [], "line": 2},
        {"tokens": ["d"], "tags": ["O"], "xpos": ["z"], "line": 3},
    ]
    assert splits["test"].num_rows == 1
    assert splits["test"].schema.metadata == {b"path": f"{tagged}:test".encode()}


def test_text_is_split_labels_are_named_and_valid_is_cut(corpus, classified):
    splits = corpus("ag_news_hub", None, path=classified).read()
    assert splits["test"].drop_columns("line").to_pylist() == [
        {"tokens": [], "label": "pos"},
        {"tokens": ["a", "b", "c"], "label": "neg"},
    ]
    assert splits["train"].num_rows + splits["valid"].num_rows == 200
    assert 5 < splits["valid"].num_rows < 40
    for row in splits["train"].to_pylist() + splits["valid"].to_pylist():
        number = int(row["tokens"][0].removeprefix("word"))
        assert row.pop("line") == number + 1
        assert row == {"tokens": [f"word{number}", "two"], "label": ["neg", "pos"][number % 2]}


@pytest.mark.parametrize("streaming", [False, True])
def test_blocks_give_the_same_rows_and_fingerprint(corpus, folder, monkeypatch, tmp_path, streaming):
    features = datasets.Features({"text": datasets.Value("string"), "words": datasets.List(datasets.Value("string"))})
    columns = {"text": [f"é{n}" * (n % 3) for n in range(100)], "words": [[f"w{n}", "x"] * (n % 4) for n in range(100)]}
    path = folder(features, train=columns)
    options = {"path": path, "columns": {"tokens": "words", "own": "text"}, "splits": {"train": "train"}}

    def read():
        reader = corpus("hub", None, **options, streaming=streaming, valid_fraction=0.2, test_fraction=0.0)
        return reader.read(), reader.fingerprint()

    whole, fingerprint = read()
    assert fingerprint == "caa953a8547c29296b11c09d0549f491de6647f3080b1a961e7f993adfdf09cf", (
        "caches of earlier versions stay valid"
    )
    monkeypatch.setenv("HYDROMEL_CACHE", str(tmp_path / "cache of blocks"))
    monkeypatch.setattr(hub, "BATCH_ROWS", 7)
    monkeypatch.setattr(blocks, "IN_MEMORY_BYTES", 100)
    parts, same = read()
    assert same == fingerprint
    assert {split: table.to_pylist() for split, table in parts.items()} == {
        split: table.to_pylist() for split, table in whole.items()
    }


def test_a_bad_row_in_a_later_block(corpus, folder, monkeypatch):
    monkeypatch.setattr(hub, "BATCH_ROWS", 7)
    texts = [f"w{n}" for n in range(99)]
    path = folder(datasets.Features({"text": datasets.Value("string")}), train={"text": [*texts, None]})
    options = {"columns": {"tokens": "text"}, "splits": {"train": "train"}}
    message = fails(lambda: corpus("hub", None, path=path, **options))
    assert message == f"{path}:train: column text: row 100 has no value; every row needs one"


def test_sequences_of_class_names_are_several_labels(tmp_path, corpus):
    names = datasets.List(datasets.ClassLabel(names=["neg", "pos"]))
    features = datasets.Features({"text": datasets.Value("string"), "emotions": names})
    rows = {"text": ["a b", "c"], "emotions": [[1, 0], []]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    columns = {"tokens": "text", "labels": "emotions"}
    splits = {"train": "train", "valid": None, "test": None}
    cut = {"valid_fraction": 0.0, "test_fraction": 0.0}
    reader = corpus("sst2_hub", None, path=str(tmp_path), config=None, splits=splits, columns=columns, **cut)
    assert reader.read()["train"].drop_columns("line").to_pylist() == [
        {"tokens": ["a", "b"], "labels": ["pos", "neg"]},
        {"tokens": ["c"], "labels": []},
    ]


def test_large_and_plain_types(tmp_path, corpus):
    (tmp_path / "train.parquet").parent.mkdir(exist_ok=True)
    table = pa.table({"words": pa.array([["a"], ["b", "c"]], pa.large_list(pa.large_string())), "label": [7, -1]})
    pq.write_table(table, tmp_path / "train.parquet")
    columns = {"tokens": "words", "label": "label"}
    splits = corpus(
        "ag_news_hub", None, path=str(tmp_path), columns=columns, splits={"train": "train"}, valid_fraction=0.0
    )
    splits.test_fraction = 0.0
    train = splits.read()["train"]
    assert train.drop_columns("line").to_pylist() == [
        {"tokens": ["a"], "label": "7"},
        {"tokens": ["b", "c"], "label": "-1"},
    ]
    assert train.schema.field("tokens").type == pa.list_(pa.string())


def fails(reader) -> str:
    with pytest.raises(HydromelError) as caught:
        reader().read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"splits": {"train": "training"}}, "split 'training' is unknown (dataset.splits.train, "),
        (
            {"splits": {"train": "train", "dev": "test"}},
            "split 'dev' is unknown (dataset.splits). Allowed: test, train, valid",
        ),
        (
            {"splits": {"train": None, "test": "test"}},
            "dataset=ag_news_hub: dataset.splits.train=null; name the split of ",
        ),
        ({"columns": {"tokens": "txt"}}, "column 'txt' is unknown (dataset.columns, "),
        (
            {"columns": {"label": "label"}},
            "dataset=ag_news_hub: dataset.columns names label; it must name the column that holds tokens",
        ),
        (
            {"columns": {"tokens": "text", "tags": "label"}},
            "SET:train: column label has type int64; tags must be lists with one tag per token",
        ),
        ({"config": "other"}, "dataset=ag_news_hub: cannot load SET: BuilderConfig 'other' not found"),
        ({"path": "/no/such/folder"}, "dataset=ag_news_hub: cannot load /no/such/folder: Couldn't find any data file"),
    ],
)
def test_wrong_arguments(overrides, message, corpus, classified):
    message = message.replace("SET", classified)
    assert fails(lambda: corpus("ag_news_hub", None, **{"path": classified} | overrides)).startswith(message)


def test_hidden_labels_and_missing_values(corpus, folder):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    path = folder(features, train={"text": ["a", "b"], "label": [0, -1]}, test={"text": ["a", None], "label": [0, 1]})
    assert fails(lambda: corpus("ag_news_hub", None, path=path)).startswith(
        f"{path}:train: column label: row 2: class -1 has no name; classes are 0 to 1"
    )
    path = folder(features, train={"text": ["a", None], "label": [0, 1]})
    assert (
        fails(lambda: corpus("ag_news_hub", None, path=path))
        == f"{path}:train: column text: row 2 has no value; every row needs one"
    )


def test_illegal_tags_and_unequal_lengths_name_the_row(corpus, folder):
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": TAGS})
    arguments = {"columns": {"tokens": "tokens", "tags": "ner_tags"}, "splits": {"train": "train"}}
    path = folder(features, train={"tokens": [["a"], [], ["b"]], "ner_tags": [[0], [], [2]]})
    message = fails(lambda: corpus("conll2003", None, path=path, **arguments))
    assert message.startswith(
        f"{path}:train: column ner_tags: row 3: tag 'I-X' at the start of a sentence is illegal in IOB2"
    )
    path = folder(features, train={"tokens": [["a"], ["b"]], "ner_tags": [[0], [0, 0]]})
    message = fails(lambda: corpus("conll2003", None, path=path, **arguments))
    assert message == f"{path}:train: column ner_tags: row 2: 2 tags for 1 tokens"


def test_any_set_by_its_columns_from_data_dir_streamed_and_by_files(corpus, tagged, tmp_path):
    options = {
        "path": "owner/set",
        "columns": {"tokens": "tokens", "tags": "ner_tags"},
        "splits": {"train": "train", "test": "test"},
        "valid_fraction": 0.0,
    }
    whole = corpus("hub", tmp_path, **options)
    streamed = corpus("hub", tmp_path, **options, streaming=True)
    assert whole.fingerprint() == streamed.fingerprint()
    assert [table.to_pylist() for table in whole.read().values()] == [
        table.to_pylist() for table in streamed.read().values()
    ]
    assert whole.read()["train"]["tags"].to_pylist() == [["B-X", "I-X"], [], ["O"]]
    files = {"data_files": {"train": "data/test-*"}, "splits": {"train": "train"}, "test_fraction": 0.0}
    assert corpus("hub", tmp_path, **options | files).read()["train"].num_rows == 1
    assert fails(lambda: corpus("hub", tmp_path / "owner", **options | {"path": "owner/other"})) == (
        f"dataset=hub: data_dir={tmp_path}/owner means local files, and it has no folder owner/other, nor other; leave "
        "data_dir out to read the Hub (embedding.data_dir is for vectors alone)"
    )


def test_a_folder_of_save_to_disk(corpus, tagged, tmp_path):
    published = datasets.load_dataset(tagged)
    published.save_to_disk(str(tmp_path / "saved"))
    published["train"].save_to_disk(str(tmp_path / "single"))
    columns = {"columns": {"tokens": "tokens", "tags": "ner_tags", "xpos": "xpos"}}
    expected = corpus("conll2003", None, path=tagged, **columns)
    saved = corpus("conll2003", None, path=str(tmp_path / "saved"), **columns)
    assert saved.fingerprint() == expected.fingerprint()
    assert all(table.equals(expected.read()[split]) for split, table in saved.read().items())
    alone = {"splits": {"train": "train"}, "valid_fraction": 0.0, "test_fraction": 0.0} | columns
    single = corpus("conll2003", None, path=str(tmp_path / "single"), **alone).read()["train"]
    assert single.equals(expected.read()["train"])
    files = {"train": [str(tmp_path / "saved" / "train" / "*.arrow")], **columns}
    arrow = corpus("parquet", None, **files, valid_fraction=0.0, test_fraction=0.0).read()["train"]
    assert arrow.equals(single)
    message = fails(lambda: corpus("conll2003", None, path=str(tmp_path / "saved"), revision="main", **columns))
    assert message == f"dataset=conll2003: dataset.revision has no effect on {tmp_path}/saved, a folder of save_to_disk"


def test_fingerprint_is_of_contents_and_arguments_not_of_places(corpus, classified, tmp_path):
    def fingerprint(path, **overrides):
        return corpus("ag_news_hub", None, path=str(path), **overrides).fingerprint()

    moved = tmp_path / "elsewhere"
    first = fingerprint(classified)
    Path(classified).rename(moved)
    assert fingerprint(moved) == first
    assert fingerprint(moved, valid_fraction=0.2) != first
    assert fingerprint(moved, columns={"tokens": "text"}) != first
    table = pq.read_table(moved / "data" / "test-00000-of-00001.parquet")
    pq.write_table(table.slice(0, 1), moved / "data" / "test-00000-of-00001.parquet")
    assert fingerprint(moved) != first


def test_without_network_one_line_says_so():
    """Run in a fresh process, because `HF_HUB_OFFLINE` is read on import."""
    program = (
        "from tasks.datasets.hub import HubDataset\nfrom runner.common.errors import HydromelError\n"
        "data = HubDataset(name='d', data_dir=None, data_files=None, streaming=False,"
        " path='lhoestq/conll2003', config=None, revision=None, splits={'train': 'train'},"
        " columns={'tokens': 'tokens'}, span_scheme=None, strict_tags=True, cut='hash', valid_fraction=0.0,"
        " test_fraction=0.0)\ntry:\n    data.read()\nexcept HydromelError as error:\n    print(error)\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=CONFIGS.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith(
        "dataset=d: cannot load lhoestq/conll2003: Couldn't reach 'lhoestq/conll2003' on the Hub"
    )
    assert "needs the network" in run.stdout
    assert run.stdout.count("\n") == 1


@pytest.mark.parametrize("name", HUB_CONFIGS)
def test_hub_configs_are_built(name, corpus):
    reader = corpus(name, None)
    assert isinstance(reader, hub.HubDataset)
    assert reader.path.count("/") == 1


def test_hub_configs_are_all_here():
    assert {"conll2003", "sst2_hub", "wikitext2_hub", "wikitext103_hub", "ag_news_hub", "trec_hub"} < set(HUB_CONFIGS)
