"""What a file holds, worked out from its content: small files of every kind, and what is refused as unclear."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runner.common.errors import HydromelError
from tasks.datasets.guess import guess

REVIEWS = [("a fine film / really", "pos"), ("dull and long", "neg"), ("I liked all of it", "pos"), ("no", "neg")] * 4
SENTENCES = "Ann B-PER\nsees O\nRome B-LOC\n\nBob B-PER\nruns O\n\n"
TAG = {"task": "tag", "features": "words_chars", "embedding": "word_char", "encoder": "conv"}
TAGGED = TAG | {"dataset": "columns_file"}
CLASSIFY = {"task": "classify", "encoder": "conv"}
LM = {"task": "lm", "encoder": "lstm"}


@pytest.fixture
def found(tmp_path):
    """Return `found(content, name, **given)`: the options for a file of that content, but not its own name."""

    def of_content(content, name="file", given=None):
        path = tmp_path / name
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        options = dict(guess([str(path)], given or {}).options)
        assert options.pop("dataset.train") == str(path)
        return options

    return of_content


@pytest.fixture
def unclear(found, tmp_path):
    """Return the message for a file that is not understood, with its path as FILE."""

    def of_content(content, name="file", given=None):
        with pytest.raises(HydromelError) as caught:
            found(content, name, given)
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(str(tmp_path / name), "FILE")

    return of_content


def table(rows, mark=",", header="text,label"):
    return "\n".join([*([header.replace(",", mark)] if header else []), *(mark.join(row) for row in rows)]) + "\n"


def json_lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


CONLLU = "# text\n" + "".join(f"{number}\tw\tl\tNOUN\tNN\t_\t0\troot\t_\t_\n" for number in (1, "2-3", 2, 3)) + "\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SENTENCES, {"dataset.separator": "space"}),
        (SENTENCES.replace(" ", "\t"), {}),
        (SENTENCES.replace(" ", "\t").replace("\n", "\r\n"), {}),
        (SENTENCES.replace(" ", "\t").replace("\n", "\r\r\n"), {}),
        (SENTENCES.replace(" ", "\t").replace("\n", "\r"), {}),
        (SENTENCES.replace("\n", " \n"), {"dataset.separator": "space"}),
        ("# doc 1\n" + SENTENCES, {"dataset.separator": "space", "dataset.comment_prefix": "#"}),
        ("-DOCSTART- O\n\n" + SENTENCES, {"dataset.separator": "space"}),
        ("-DOCSTART- -X- -X- O\n\n" + SENTENCES, {"dataset.separator": "space"}),
        ("1 Ann N B-PER\n2 runs V O\n\n1 Bob N B-PER\n", {"dataset.separator": "space", "dataset.columns.tokens": 1}),
        ("the DET\nend NOUN\n\na DET\nstart NOUN\n\n", {"dataset.separator": "space"}),
        ("Ann\tB-PER\nruns\tO\n", {}),  # one sentence
        ("\ufeff" + SENTENCES.replace(" ", "\t"), {}),
        (SENTENCES.replace(" ", "\t").encode("utf-16"), {"dataset.encoding": "utf-16"}),
        (gzip.compress(SENTENCES.replace(" ", "\t").encode(), mtime=0), {}),
    ],
)
def test_column_files(found, content, expected):
    assert found(content) == TAGGED | expected


@pytest.mark.parametrize("start", ["", "-DOCSTART- O\n\n"])
def test_few_words_or_token_numbers_are_no_labels(found, start):
    expected = TAGGED | {"dataset.separator": "space"}
    assert found(start + "Ann B-PER\nsees O\nBob I-PER\n\n" * 40) == expected
    numbered = "1 Ann NNP B-PER\n2 sees VB O\n3 Rome NNP B-LOC\n\n"
    assert found(numbered * 40) == expected | {"dataset.columns.tokens": 1}


def test_conllu(found, unclear):
    expected = TAG | {"dataset": "conllu"}
    assert found(CONLLU) == expected
    assert found(CONLLU.replace("NOUN", "_")) == expected | {"dataset.columns.tags": "xpos"}
    plus = "# global.columns = ID FORM LEMMA PARSEME:MWE\n1\ta\tb\t*\n2\tc\td\t1:X\n\n"
    assert found(plus) == expected | {"dataset.columns.tags": "parseme:mwe"}
    both = plus.replace("LEMMA", "NER")
    assert unclear(both).startswith(
        "FILE: it is not clear which column holds the tags: ner, parseme:mwe; give dataset.co"
    )
    assert found(both, given={"dataset.columns.tags": "ner"}) == expected


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (table(REVIEWS), "a.csv", {"dataset": "csv"}),
        (table(REVIEWS), "a", {"dataset": "csv"}),  # for the names of its columns
        (table(REVIEWS, "\t"), "a.txt", {"dataset": "tsv"}),
        (table(REVIEWS, ";"), "a.csv", {"dataset": "csv", "dataset.delimiter": ";"}),
        (table(REVIEWS, "|"), "a.csv", {"dataset": "csv", "dataset.delimiter": "|"}),
        (
            table(REVIEWS, "\t", None),
            "a.tsv",
            {"dataset": "tsv", "dataset.header": False, "dataset.text_columns": 0} | {"dataset.label_column": 1},
        ),
        (
            table(REVIEWS, "\t", "said,kind"),
            "a.tsv",
            {"dataset": "tsv", "dataset.text_columns": "said"} | {"dataset.label_column": "kind"},
        ),
        ('"text","label"\n"a, b\nc",x\n"d",y\n', "a.csv", {"dataset": "csv"}),
        (
            "id,question,Label\n7,how far is it,num\n8,who was he,hum\n",
            "a.csv",
            {"dataset": "csv"} | {"dataset.text_columns": "question", "dataset.label_column": "Label"},
        ),
        ("text,stars\ngood one,5\nbad one,1\n", "a.csv", {"dataset": "csv", "dataset.label_column": "stars"}),
        (
            "premise,hypothesis,label\na b,c,0\nd,e f,1\n",
            "a.csv",
            {"dataset": "csv", "task.pairs": "apart"} | {"dataset.text_columns": {"a": "premise", "b": "hypothesis"}},
        ),
    ],
)
def test_tables(found, content, name, expected):
    assert found(content, name) == CLASSIFY | expected


def test_a_label_may_be_a_common_name(found):
    rows = [("how far is it", "question"), ("it is far", "statement")] * 6
    assert found(table(rows, "\t", None))["dataset.header"] is False


def test_tables_of_text_alone(found):
    assert found("text\na b\nc d\n", "a.csv") == LM | {"dataset": "csv", "dataset.label_column": None}
    assert found("id,text\n1,a b\n2,c d\n", "a.csv") == LM | {"dataset": "csv", "dataset.label_column": None}


def test_numbers_with_fractions_are_values(found):
    options = found("sentence1,sentence2,score\na,b c,4.5\nd,e,3\n", "a.csv")
    assert (options["task"], options["task.pairs"]) == ("regress", "apart")
    assert found(json_lines({"text": "a b", "score": 2}, {"text": "c", "score": 0.5}))["task"] == "regress"
    assert found(json_lines({"text": "a b", "score": 2}, {"text": "c", "score": 1}))["task"] == "classify"


@pytest.mark.parametrize("missing", ["", "NaN", "N/A", "null"])
def test_a_column_of_numbers_of_which_some_are_missing(found, missing):
    assert found(f"text,score\na b,4.5\nd e,{missing}\nc,3\n", "a.csv")["task"] == "regress"
    assert found(f"text,label\na b,4\nd e,{missing}\nc,3\n", "a.csv")["task"] == "classify"


def test_a_missing_number_in_parquet_and_json(found):
    assert found(pa.table({"text": ["a b", "c", "d"], "score": [0.5, float("nan"), None]}))["task"] == "regress"
    assert found('{"text": "a b", "score": 0.5}\n{"text": "c", "score": NaN}\n')["task"] == "regress"


def test_a_column_of_several_labels_is_asked_for(found, unclear):
    several = [("a film", "x;y"), ("b", "y"), ("c", "x"), ("d e", "y;x"), ("f", "")]
    content = table(several, header="text,labels")
    assert unclear(content, "a.csv") == (
        "FILE: column labels may hold several labels per row, separated by ';'; give task.labels=many "
        "'dataset.label_separator=\";\"', or task.labels=one"
    )
    options = found(content, "a.csv", {"dataset.label_separator": ";"})
    assert (options["task"], options["task.labels"]) == ("classify", "many")
    assert found(content, "a.csv", {"task.labels": "one"})["task"] == "classify"
    places = [("a film", '"Rome, Italy"'), ("b c", '"Lima, Peru"'), ("d", '"Rome, Italy"')]
    assert found(table(places), "a.csv")["task"] == "classify"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_encodings_are_known_by_their_mark(found, encoding):
    assert found(table(REVIEWS).encode(encoding), "a.csv") == CLASSIFY | {
        "dataset": "csv",
        "dataset.encoding": encoding,
    }


def test_a_folder_of_save_to_disk_is_named(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text("{}")
    with pytest.raises(HydromelError, match=r"saved is a folder of save_to_disk; use dataset=hub dataset\.path="):
        guess([str(tmp_path / "saved")], {})


def test_a_table_without_rows(unclear):
    message = "FILE: only a header, no rows; its columns are text, label"
    assert unclear("text,label\n", "a.csv") == message
    assert unclear(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())})) == message


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"text": "a b", "label": "x"}, {"task": "classify"}),
        ({"text": "a b", "label": True}, {"task": "classify"}),
        (
            {"id": 7, "review": "a b", "sentiment": 1},
            {"task": "classify", "dataset.text_field": "review"} | {"dataset.label_field": "sentiment"},
        ),
        (
            {"tokens": ["a", "b"], "tags": ["O", "O"]},
            TAG
            | {"dataset.text_field": None}
            | {"dataset.tokens_field": "tokens", "dataset.label_field": None, "dataset.tags_field": "tags"},
        ),
        (
            {"tokens": ["a", "b"], "label": "x"},
            {"task": "classify", "dataset.text_field": None} | {"dataset.tokens_field": "tokens"},
        ),
        (
            {"sentence1": "a b", "sentence2": "b", "label": "x"},
            {"task": "classify", "task.pairs": "apart"}
            | {"dataset.text_columns": {"a": "sentence1", "b": "sentence2"}},
        ),
        ({"text": "a b"}, {"task": "lm", "dataset.label_field": None, "encoder": "lstm"}),
    ],
)
def test_json_lines(found, record, expected):
    assert found(json_lines(record, record)) == {"dataset": "jsonl", "encoder": "conv"} | expected


def test_a_target_that_rows_lack_stays_one(found):
    full, empty, lacking = {"text": "a b", "label": "x"}, {"text": "a b", "label": None}, {"text": "a b"}
    for records in ([full, empty], [full, lacking], [lacking, full]):
        assert found(json_lines(*records * 10)) == CLASSIFY | {"dataset": "jsonl"}
    columns = {"dataset.columns": {"tokens": "text", "label": "label"}}
    assert found(pa.Table.from_pylist([full, empty] * 10)) == CLASSIFY | {"dataset": "parquet"} | columns


def test_lists_of_tags_that_lack_some_are_no_labels(unclear):
    records = [{"tokens": ["a", "b"], "ner_tags": ["O", "B-X"]}] * 5 + [{"tokens": ["a", "b"], "ner_tags": ["O"]}]
    message = "FILE: row 6: 2 tokens, but 1 values in ner_tags; give each token a tag, or name the target: "
    assert unclear(json_lines(*records)).startswith(message)


def test_several_labels(found):
    labelled = "__label__a __label__b some words\n__label__a more words\n"
    several = {"task": "classify", "task.labels": "many", "encoder": "conv"}
    assert found(labelled) == several | {"dataset": "labelled"}
    options = found(json_lines({"text": "a b", "labels": ["x", "y"]}, {"text": "c", "labels": []}))
    assert (options["task"], options["task.labels"]) == ("classify", "many")


def test_tables_in_parquet(found):
    tagged = pa.table({"words": [["a", "b"], ["c"]], "ner_tags": [[0, 1], [-100]], "id": [1, 2]})
    assert found(tagged) == TAG | {"dataset": "parquet"} | {"dataset.columns": {"tokens": "words", "tags": "ner_tags"}}
    text = pa.table({"text": ["a b", "c"], "label": [0, 1], "embedding": [[0.5], [1.0]]})
    assert found(text)["dataset.columns"] == {"tokens": "text", "label": "label"}
    pairs = pa.table({"premise": ["a b"], "hypothesis": ["c"], "label": [0]})
    assert found(pairs)["dataset.columns"] == {"tokens": "premise", "tokens_b": "hypothesis", "label": "label"}


@pytest.mark.parametrize(
    ("lines", "dataset"),
    [
        ([f"{number % 2} some words" for number in range(20)], "labelled"),
        (["1 some words"] * 20, "labelled"),  # sorted by label
        ([f"NUM:{'abcd'[number % 4]} how far" for number in range(20)], "labelled"),
        ([f"{('pos', 'neg')[number % 2]} some words" for number in range(60)], "labelled"),
        ([f"{('it', 'is')[number % 2]} what it is" for number in range(60)], "text"),
        (["__label__x"], "labelled"),
        ([f"({number % 5} (2 a) (3 film))" for number in range(3)], "sst_trees"),
        (["1 some words"] * 9, "text"),
        (["The end of it .", "A start .", "A word , and more ."] * 9, "text"),
        (["First , we go , then", "we come , or we , well"] * 9, "text"),  # as many commas in every line
        (["one"], "text"),
        (["a b", "", "c d", "", "e f"], "text"),  # two words in every line are no tokens and tags
    ],
)
def test_lines(found, lines, dataset):
    assert found("\n".join(lines))["dataset"] == dataset


def test_what_is_given_stays(found):
    rows = [(label, "long title", text) for text, label in REVIEWS]
    csv = table([(a, b, c) for a, b, c in rows], header="label,title,body")
    options = found(csv, "a.csv", {"dataset.text_columns": "title", "encoder": "bow"})
    assert options == {"task": "classify", "dataset": "csv"}
    assert found(csv, "a.csv", {"task": "lm"}) == {"dataset": "csv", "dataset.text_columns": "body"} | {
        "encoder": "lstm"
    }
    assert found(csv, "a.csv", {"dataset": "text"}) == LM
    options = found(csv, "a.csv", {"dataset.label_column": "title", "dataset.text_columns": ["body"]})
    assert options == CLASSIFY | {"dataset": "csv"}
    assert "encoder" not in found(csv, "a.csv", {"experiment": "sst2_conv"})
    assert "embedding" not in found(SENTENCES, given={"features": "words"})
    assert found(SENTENCES, given={"dataset.columns": {"tokens": 0}})["task"] == "tag"
    assert found(SENTENCES, given={"task": "lm"})["dataset"] == "columns_file"
    options = found(table(REVIEWS), "a.csv", {"dataset.header": False, "dataset": "csv"})
    assert (options["dataset.text_columns"], options["dataset.label_column"]) == (0, 1)


@pytest.mark.parametrize(
    ("content", "given", "message"),
    [
        (
            table(REVIEWS),
            {"task": "tag", "dataset": "csv"},
            "FILE: a table with the columns text, label; task=tag needs tags",
        ),
        (
            SENTENCES,
            {"task": "classify"},
            "FILE: one token per line in 2 columns (space), column 0 tokens, the last tags",
        ),
        (
            table(REVIEWS),
            {"dataset": "wnut17"},
            "dataset=wnut17 and data=FILE: leave it out, or give one of columns_file",
        ),
        (table(REVIEWS), {"dataset": "columns_file"}, "FILE: not what dataset=columns_file reads: the lines differ in"),
        (table(REVIEWS), {"dataset.valid": "x"}, "data=FILE and dataset.valid both name files; give one of them"),
        ("a,b\nc,d\ne,f\n", {"dataset": "csv"}, "FILE:1: it is not clear if this line names the columns; give"),
        (
            "title,lead,kind,part\nsome words here,other words here,x,y\nmore words here,yet other words,x,y\n" * 3,
            {"dataset": "csv", "dataset.header": True},
            "FILE: it is not clear which column holds the text; the columns are title, lead, kind, part; give",
        ),
        (
            "text,kind,part\nsome words here,x,y\nmore words here,x,y\n",
            {"dataset": "csv"},
            "FILE: several columns may hold the label: kind, part; give dataset.label_column=NAME (null: none)",
        ),
        (
            json_lines({"tokens": ["a"], "pos": ["N"], "ner": ["O"]}),
            {},
            "FILE: several columns may hold the tags: pos, ner",
        ),
        ("[1, 2]", {"dataset": "jsonl"}, "FILE:1: each line must hold one JSON object"),
        ('{"text": 1}\n{"text"\n', {}, "FILE:2: not JSON ("),
        (b"PK\x03\x04", {}, "FILE: a zip archive or an office document; unpack it, or export it as CSV"),
        (
            b"caf\xe9 noir",
            {},
            "FILE:1:4: byte 3 (0xe9) is not utf-8: invalid continuation byte; set the file's encoding",
        ),
        (b" \n\n", {}, "FILE: no examples; the file contains only white space"),
        (b"", {}, "FILE: the file is empty"),
    ],
)
def test_unclear_or_contradictory(unclear, content, given, message):
    assert unclear(content, given=given).startswith(message)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.conll", "a.conllu", "a.csv.gz"])
def test_a_name_that_the_content_does_not_fit(unclear, name):
    message = unclear("some words , and more\nof them\n", name)
    assert message.startswith("FILE: its content is not what its name says; dataset=")


@pytest.mark.parametrize(
    ("content", "name", "given", "message"),
    [
        ("a\tb\nc d\ne\tf\n", "a.tsv", {}, "FILE:2: 1 column; most lines have 2; give dataset=text for plain text"),
        ("a\tb\nc d\ne\tf\n", "a.txt", {"dataset": "tsv"}, "FILE:2: 1 column; most lines have 2"),
        ('a,b\n"x\ny",c\nd,e,f\n', "a.csv.gz", {}, "FILE:4: 3 columns; most lines have 2; give dataset=text for"),
        ("a;b\nc\nd;e\n", "a.csv", {"dataset": "csv", "dataset.delimiter": ";"}, "FILE:2: 1 column; most lines have"),
        (SENTENCES + "oops\n", "a.conll", {}, "FILE:8: 1 column; most lines have 2; give dataset=text for plain"),
        (SENTENCES + "# a comment\nBob B PER\n", "a.txt", {"dataset": "columns_file"}, "FILE:9: 3 columns; most lines"),
        (SENTENCES.replace(" ", "\t") + "oo ps\n", "a.conll", {}, "FILE:8: 1 column; most lines have 2"),
        (CONLLU.replace("2-3\tw", "2-3 w"), "a.conllu", {}, "FILE:3: 9 columns; most lines have 10"),
        ('a,b\n"x,c\nd,e\n', "a.csv", {}, "FILE:2: a quote is not closed; give dataset=text for plain text"),
        ('a,b\nc,d\n"x\ny",c\n"d,e\nf,g\n', "a.csv", {"dataset": "csv"}, "FILE:5: a quote is not closed"),
    ],
)
def test_the_line_with_another_number_of_columns_is_named(unclear, content, name, given, message):
    assert unclear(content, name, given).startswith(message)


@pytest.mark.parametrize("content", ["# a\n# b\n", "a\n", "#\n\nb c\n", '"\n'])
@pytest.mark.parametrize("name", ["a.conll", "a.conllu", "a.tsv"])
def test_no_line_is_blamed_where_lines_have_nothing_in_common(unclear, content, name):
    assert unclear(content, name).startswith("FILE: its content is not what its name says; dataset=")


def test_a_json_array_and_two_delimiters(unclear):
    assert unclear('[\n{"text": "a"}\n]', "a.json") == "FILE: a JSON array; write one object per line (jq -c '.[]')"
    message = "FILE: the columns may be separated by , or by ;; give dataset.delimiter=..."
    assert unclear("a;b,c\nd;e,f\n", "a.csv") == message


def test_files_of_the_splits(tmp_path):
    for name in ("train-1", "train-2", "valid"):
        (tmp_path / name).write_text(SENTENCES)
    options = guess(["train-*", "valid"], {"data_dir": str(tmp_path)}).options
    files = {"dataset.train": "train-*", "dataset.valid": "valid"}
    assert options == TAGGED | {"dataset.separator": "space"} | files
    for files in (["train-1", ""], ["a", "b", "c", "d"]):
        with pytest.raises(HydromelError, match="give one to three files, TRAIN,VALID,TEST"):
            guess(files, {"data_dir": str(tmp_path)})
    with pytest.raises(HydromelError, match="no file matches"):
        guess(["nothing*"], {"data_dir": str(tmp_path)})


def test_the_head_of_a_long_table_may_end_within_quotes(found):
    rows = [('"' + "some words\n" * 30 + '"', "pos"), ('"others, and more"', "neg")]
    assert found(table(rows * 2000), "a.csv") == CLASSIFY | {"dataset": "csv"}


def test_long_files_are_known_by_their_head(found):
    sentence = "".join(f"word{number}\tNOUN\nit\tPRON\n" for number in range(50)) + "\n"
    assert found(gzip.compress((sentence * 1000).encode(), mtime=0)) == TAGGED
    assert (
        found(table([("é" * 50 + " words", str(number % 2)) for number in range(10_000)], "\t"), "a")["dataset"]
        == "tsv"
    )


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "dataset"),
    [
        ("tagging/wnut17/wnut17train.conll", "columns_file"),
        ("tagging/twitter_pos/oct27.train", "columns_file"),
        ("tagging/ud_english_ewt/en_ewt-ud-train.conllu.gz", "conllu"),
        ("classification/mr/rt-polarity.all", "labelled"),
        ("classification/subj/subj.all", "labelled"),
        ("classification/trec/TREC.test", "labelled"),
        ("classification/sst5/stsa.fine.train", "labelled"),
        ("classification/sst_trees/train.txt", "sst_trees"),
        ("classification/ag_news/train_sample.tsv", "tsv"),
        ("classification/newsgroups4/train.tsv", "tsv"),
        ("classification/movie_reviews/train.tsv", "tsv"),
        ("lm/tinyshakespeare/input.txt", "text"),
        ("lm/war_and_peace/input.txt", "text"),
        ("lm/wikitext-2/train.txt.gz", "text"),
    ],
)
def test_published_files(published, file, dataset):
    options = guess([str(Path(published, file))], {}).options
    assert options["dataset"] == dataset
    task = {"columns_file": "tag", "conllu": "tag", "text": "lm"}.get(dataset, "classify")
    assert options["task"] == task
