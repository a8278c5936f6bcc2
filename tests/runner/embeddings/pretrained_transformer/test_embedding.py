"""Pretrained transformers: the same vectors packed, padded and alone, and those of transformers itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from runner.common.errors import HydromelError
from runner.config.instantiate import build
from runner.embeddings.pretrained_transformer.backbone import single_row
from runner.embeddings.pretrained_transformer.embedding import TransformerEmbedding
from runner.embeddings.pretrained_transformer.files import find_files
from runner.embeddings.pretrained_transformer.padded import PaddedBackbone
from runner.ragged.ragged import Layout, Ragged
from runner.ragged.rows import Rows
from runner.text.vocab import SPECIALS, Vocab
from tests.helpers.composed import config
from tests.helpers.contract import rows_of

pytest.importorskip("transformers", reason="needs the extra `pretrained`")
from tests.helpers.pretrained import FAMILIES, UNSUPPORTED, WORDS, change_config, save_tiny

VOCAB = Vocab(WORDS, SPECIALS)
TEXT = [[3, 4, 5, 9, 10], [7], [], [8, 3, 11, 12, 13, 14, 4], [16, 9]]
Saved = Callable[[str], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("tiny")

    def get(family: str) -> Path:
        return folder / family if (folder / family).is_dir() else save_tiny(folder / family, family)

    return get


def embedding(path: Path, vocab: Vocab = VOCAB, **changed: object) -> TransformerEmbedding:
    torch.manual_seed(1)
    options = [f"embedding.{key}={value}" for key, value in ({"overlap": 2} | changed).items()]
    node = config("embedding=pretrained", f"embedding.path={path}", *options)["embedding"]
    made = build(node, "embedding", {"vocabs": {"forms": vocab}, "files": None})
    assert isinstance(made, TransformerEmbedding)
    return made.double()


def ids_of(text: list[list[int]], layout: Layout = "packed", first_seed: int | None = None) -> dict[str, Ragged]:
    rows = rows_of([len(row) for row in text])
    if first_seed is not None:
        rows = rows.with_seeds(torch.arange(first_seed, first_seed + len(text)))
    ids = Ragged(torch.tensor([word for row in text for word in row], dtype=torch.int32), rows, "packed")
    return {"forms": ids if layout == "packed" else ids.pad(VOCAB.pad)}


def outcome(made: TransformerEmbedding, batches: list[dict[str, Ragged]]) -> tuple[Tensor, list[Tensor]]:
    """Return the vectors of real tokens, and gradients of the parameters summed over batches."""
    parameters = [parameter for parameter in made.parameters() if parameter.requires_grad]
    vectors = [made(batch).tokens() for batch in batches]
    together = torch.cat(vectors)
    total = (together * torch.linspace(1, 2, together.shape[-1]).to(together)).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return together.detach(), [torch.zeros(()) if g is None else g for g in gradients]


def assert_equal(mine: tuple[Tensor, list[Tensor]], theirs: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(mine[0], theirs[0], rtol=1e-9, atol=1e-9)
    for a, b in zip(mine[1], theirs[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_the_same_packed_padded_and_alone(family: str, saved: Saved) -> None:
    made = embedding(saved(family), pool="mean", specials="drop", dropout=0.1)
    for training in (False, True):  # in training with dropout by the rows' seeds
        made.train(training)
        alone = [ids_of([row], first_seed=number) for number, row in enumerate(TEXT)]
        reference = outcome(made, alone)
        assert_equal(outcome(made, [ids_of(TEXT, "packed", 0)]), reference)
        assert_equal(outcome(made, [ids_of(TEXT, "padded", 0)]), reference)
    assert made.backbone.training
    assert made.token_context == ("earlier" if family in ("gpt2", "llama", "qwen3", "mistral") else "all")


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_those_of_transformers(family: str, saved: Saved) -> None:
    from transformers import AutoModel, AutoTokenizer

    made = embedding(saved(family), pool="first").eval()
    model = AutoModel.from_pretrained(saved(family)).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(saved(family), add_prefix_space=True)
    vectors = made(ids_of(TEXT)).tokens().split([len(row) for row in TEXT])
    for row, mine in zip(TEXT, vectors, strict=True):
        if not row:
            continue
        encoded = tokenizer(VOCAB.decode(row), is_split_into_words=True, return_tensors="pt")
        words = encoded.word_ids()
        hidden = model(encoded["input_ids"]).last_hidden_state[0]
        # a word of which the tokenizer makes no piece has one unknown piece here, and none there
        firsts = [words.index(at) for at in range(len(row))]
        torch.testing.assert_close(mine, hidden[firsts], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", UNSUPPORTED)
def test_a_model_whose_attention_cannot_keep_rows_apart_runs_padded(family: str, saved: Saved) -> None:
    made = embedding(saved(family), pool="last").eval()
    assert isinstance(made.backbone, PaddedBackbone)
    reference = outcome(made, [ids_of([row]) for row in TEXT])
    assert_equal(outcome(made, [ids_of(TEXT, "packed")]), reference)
    assert_equal(outcome(made, [ids_of(TEXT, "padded")]), reference)
    assert made.token_context == "all"
    counted = made.counters()["pieces"]
    made(ids_of(TEXT, "packed"))
    assert made.counters()["pieces"]["padded"] > counted["padded"]  # the model pads packed rows itself
    line = made.describe({}).line
    assert line is not None
    assert "runs padded under every strategy" in line


def test_a_model_that_mixes_rows_is_refused(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaks(self: Rows) -> Tensor:
        return torch.ones(self.n_rows, self.width, dtype=torch.bool)

    monkeypatch.setattr(Rows, "mask", property(leaks))
    with pytest.raises(HydromelError, match="bert mixes the rows of a batch: p"):
        embedding(saved("bert"))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_static_table_gives_the_vectors_of_its_pieces(weighted: bool, saved: Saved, tmp_path: Path) -> None:
    folder = tmp_path / "static"
    shutil.copytree(saved("bert"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    change_config(folder, model_type="model2vec", hidden_dim=5)
    vectors, weights = torch.randn(90, 5), torch.rand(90)
    save_file({"embeddings": vectors} | ({"weights": weights} if weighted else {}), folder / "model.safetensors")
    made = embedding(folder, pool="mean").eval()
    table = (vectors * weights[:, None] if weighted else vectors).double()
    expected = [
        table[made.table.pieces[made.table.offsets[word] : made.table.offsets[word + 1]]].mean(0)
        for row in TEXT
        for word in row
    ]
    torch.testing.assert_close(made(ids_of(TEXT)).tokens(), torch.stack(expected))
    torch.testing.assert_close(made(ids_of(TEXT, "padded")).tokens(), torch.stack(expected))
    made.save_files(tmp_path)
    again = build(
        config("embedding=pretrained", f"embedding.path={folder}")["embedding"],
        "embedding",
        {"vocabs": {"forms": VOCAB}, "files": tmp_path},
    )
    assert isinstance(again, TransformerEmbedding)
    again.double().load_state_dict(made.state_dict())


def test_adapters_are_trained_alone(saved: Saved) -> None:
    lora = "{rank: 2, alpha: 4, dropout: 0.1, targets: [query, value]}"
    made, plain = embedding(saved("bert"), lora=lora), embedding(saved("bert"))
    trained = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 2 * 2
    assert all("lora_" in name for name in trained)
    torch.testing.assert_close(made.eval()(ids_of(TEXT)).tokens(), plain.eval()(ids_of(TEXT)).tokens())
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    made.train()
    alone = [ids_of([row], first_seed=number) for number, row in enumerate(TEXT)]
    reference = outcome(made, alone)
    assert not torch.allclose(reference[0], plain(ids_of(TEXT)).tokens())
    assert_equal(outcome(made, [ids_of(TEXT, "packed", 0)]), reference)
    assert_equal(outcome(made, [ids_of(TEXT, "padded", 0)]), reference)
    with pytest.raises(HydromelError, match=r"lora.targets=\['nothing'\] does not fit .* query, value"):
        embedding(saved("bert"), lora="{rank: 2, alpha: 4, dropout: 0.1, targets: [nothing]}")


def test_of_adapters_only_the_rank_must_be_given(saved: Saved) -> None:
    def with_trained_adapters(lora: str) -> TransformerEmbedding:
        made = embedding(saved("bert"), lora=lora)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.linspace(-0.1, 0.1, parameter.numel()).reshape(parameter.shape))
        return made.eval()

    short, long = map(
        with_trained_adapters, ("{rank: 2}", "{rank: 2, alpha: 4, dropout: 0.0, targets: [query, value]}")
    )
    assert [*short.state_dict()] == [*long.state_dict()]
    assert torch.equal(short(ids_of(TEXT)).values, long(ids_of(TEXT)).values)
    for wrong, message in (
        ("{targets: [query]}", r"embedding\.lora=\{'targets': \['query'\]\}: rank is missing"),
        ("{rank: 2, targest: [query]}", r"embedding\.lora\.targest=\['query'\]: Extra inputs are not permitted"),
    ):
        with pytest.raises(HydromelError, match=message):
            embedding(saved("bert"), lora=wrong)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_adapters_are_merged_into_a_folder_that_transformers_reads(family: str, saved: Saved, tmp_path: Path) -> None:
    from transformers import AutoModel

    targets = "[query, value]" if family == "bert" else "[q, v]"
    made = embedding(saved(family), lora=f"{{rank: 2, alpha: 4, dropout: 0.1, targets: {targets}}}").eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    assert made.write_folder(tmp_path) < 1e-6
    assert any("lora" in name for name in made.state_dict())
    ids = torch.tensor([[2, 9, 11, 3]])
    model = AutoModel.from_pretrained(tmp_path).double().eval()
    mine = made.backbone(Ragged(ids[0], rows_of([4]), "packed"), None, False)[-1].values
    torch.testing.assert_close(mine, model(ids).last_hidden_state[0], rtol=1e-5, atol=1e-5)
    assert np.array_equal(embedding(tmp_path).table.pieces, made.table.pieces)


@pytest.mark.parametrize("family", ["bert", "modernbert", "qwen3"])
def test_layers_computed_again_give_the_same_gradients(family: str, saved: Saved) -> None:
    plain, again = (embedding(saved(family), recompute=recompute).train() for recompute in (False, True))
    for layout in ("packed", "padded"):
        assert_equal(outcome(again, [ids_of(TEXT, layout, 3)]), outcome(plain, [ids_of(TEXT, layout, 3)]))


def test_pools_of_a_words_pieces(saved: Saved) -> None:
    by_pool = {pool: embedding(saved("bert"), pool=pool).eval() for pool in ("first", "last", "mean", "first_last")}
    first, last, mean, both = (made(ids_of(TEXT)).tokens() for made in by_pool.values())
    torch.testing.assert_close(both, torch.cat([first, last], dim=-1))
    table = by_pool["mean"].table
    counts = torch.from_numpy(np.diff(table.offsets)[[word for row in TEXT for word in row]])
    assert int(counts.max()) > 2
    assert int(counts.min()) == 1
    torch.testing.assert_close(mean[counts == 1], first[counts == 1])
    torch.testing.assert_close(mean[counts == 2], (first + last)[counts == 2] / 2)
    assert not torch.allclose(mean[counts > 2], (first + last)[counts > 2] / 2)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_kept_special_pieces_come_first(layout: Layout, saved: Saved) -> None:
    kept, dropped = (embedding(saved("bert"), specials=specials).eval() for specials in ("keep", "drop"))
    longer, words = kept(ids_of(TEXT, layout)), dropped(ids_of(TEXT, layout))
    assert longer.layout == layout
    assert longer.rows.host_lengths.tolist() == [len(row) + 1 for row in TEXT]
    for whole, rest in zip(
        longer.tokens().split(longer.rows.host_lengths.tolist()),
        words.tokens().split(words.rows.host_lengths.tolist()),
        strict=True,
    ):
        torch.testing.assert_close(whole[1:], rest)
    with pytest.raises(HydromelError, match="puts no special piece before a text"):
        embedding(saved("gpt2"), specials="keep")


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_long_rows_are_read_in_overlapping_windows(layout: Layout, saved: Saved) -> None:
    made = embedding(saved("bert"), window=9, overlap=3, pool="last").eval()
    whole = embedding(saved("bert"), pool="last").eval()
    text = [[8, 3, 11, 12, 13, 14, 4, 9, 9, 10, 8], [4], [5, 6]]
    vectors = made(ids_of(text, layout)).tokens()
    expected = by_hand(made, text)
    torch.testing.assert_close(vectors, expected, rtol=1e-9, atol=1e-9)
    unwindowed = whole(ids_of(text, layout)).tokens()
    torch.testing.assert_close(vectors[-3:], unwindowed[-3:], rtol=1e-9, atol=1e-9)  # short rows are read whole
    assert not torch.allclose(vectors[:11], unwindowed[:11])


def by_hand(made: TransformerEmbedding, text: list[list[int]]) -> Tensor:
    """Return the vectors of the last pieces of words, window by window and piece by piece."""
    size, step = made.longest - made.around.count, made.longest - made.around.count - made.overlap
    result = []
    for row in text:
        words = [made.table.pieces[made.table.offsets[word] : made.table.offsets[word + 1]].tolist() for word in row]
        pieces = [piece for word in words for piece in word]
        starts = [0]
        while starts[-1] + size < len(pieces):
            starts.append(starts[-1] + step)
        starts = [min(start, max(0, len(pieces) - size)) for start in starts]
        best: dict[int, tuple[int, Tensor]] = {}
        for start in starts:
            inside = pieces[start : start + size]
            laid = torch.tensor([[*made.around.before, *inside, *made.around.after]])
            hidden = single_row(made.backbone, Ragged(laid[0], rows_of([laid.shape[1]]), "packed"))
            for at in range(len(inside)):
                edge = min(at, len(inside) - 1 - at)
                if start + at not in best or edge > best[start + at][0]:
                    best[start + at] = (edge, hidden[len(made.around.before) + at])
        ends = np.cumsum([len(word) for word in words]) - 1
        result += [best[int(end)][1] for end in ends]
    return torch.stack(result)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_positions_that_depend_on_the_longest_row_stay_within_their_first_length(
    kind: str, tmp_path: Path
) -> None:
    path, size = save_tiny(tmp_path / "llama", "llama"), 8
    factors = {"short_factor": [1.0] * (size // 2), "long_factor": [4.0] * (size // 2)} if kind == "longrope" else {}
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 10, **factors}
    change_config(path, rope_parameters=rope, max_position_embeddings=10 if kind == "dynamic" else 40)
    made = embedding(path, overlap=2).eval()
    assert made.longest == 10
    long, short = [8, 3, 11, 12, 13, 14, 4, 9, 9, 10, 8], [5, 6]
    assert len(made.table.pieces[: made.table.offsets[-1]]) > 10
    alone, together = made(ids_of([short])).tokens(), made(ids_of([long, short])).tokens()
    torch.testing.assert_close(together[len(long) :], alone, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(made(ids_of([short, long], "padded")).tokens()[:2], alone, rtol=1e-9, atol=1e-9)
    with pytest.raises(HydromelError, match="window=11, but the model has positions for 10 pieces"):
        embedding(path, window=11)


def test_layers_are_mixed_by_learned_weights(saved: Saved) -> None:
    made = embedding(saved("bert"), layers="[0,1,-1]").eval()
    assert made.mix is not None
    with torch.no_grad():
        made.mix.copy_(torch.tensor([0.0, 1.0, 2.0]))
    single = [embedding(saved("bert"), layers=f"[{layer}]").eval()(ids_of(TEXT)).tokens() for layer in (0, 1, 2)]
    weights = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).softmax(0)
    mixed = sum(weight * vectors for weight, vectors in zip(weights, single, strict=True))
    torch.testing.assert_close(made(ids_of(TEXT)).tokens(), mixed)


def test_parts_are_frozen_and_rates_fall_by_layer(saved: Saved) -> None:
    made = embedding(saved("bert"), frozen="[embeddings,0]", rate=0.5, layer_decay=0.1)
    trained = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".layer.1." in name for name in trained)
    factors = made.learning_rate_factors
    assert set(factors) == {name for name, _ in made.named_parameters()}
    expected = {"embeddings": 0.005, ".layer.0.": 0.05, ".layer.1.": 0.5}
    for part, factor in expected.items():
        found = [value for name, value in factors.items() if part in name]
        assert found == [pytest.approx(factor)] * len(found) != [], part
    with pytest.raises(HydromelError, match="frozen: '7' is none of"):
        embedding(saved("bert"), frozen="['7']")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights in the safetensors format"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100), "its weights cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: change_config(folder, model_type="nonsense"), "its [a-z]+ cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "its tokenizer cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "model.bin"), "model.bin can hold code"),
        (lambda folder: change_config(folder, model_type="vit"), "is no model of text"),
        (lambda folder: change_config(folder, vocab_size=20), "the weights do not fit config.json"),
        (lambda folder: change_config(folder, hidden_size=10**9), "hidden_size=1000000000; it must be from 1 to"),
        (lambda folder: change_config(folder, num_hidden_layers=0), "num_hidden_layers=0; it must be from 1 to 1,000"),
        (lambda folder: cut_file(folder / "model.safetensors"), "its weights cannot be loaded"),
        (lambda folder: rename_weights(folder / "model.safetensors", "other."), "none of its weights are those"),
        (lambda folder: own_code(folder), "its [a-z]+ cannot be loaded"),
    ],
)
def test_damaged_folders_are_one_line(spoil: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    spoil(save_tiny(tmp_path / "bert", "bert"))
    with pytest.raises(HydromelError, match=message) as caught:
        embedding(tmp_path / "bert")
    assert "\n" not in str(caught.value)


def cut_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def test_the_head_of_a_checkpoint_is_left_out_and_told(saved: Saved, tmp_path: Path) -> None:
    """A model that was saved with a head, whose weights have a prefix: its base is taken."""
    import transformers

    expected = embedding(saved("bert")).eval()(ids_of(TEXT)).tokens()
    for name, head in (("SequenceClassification", "classifier"), ("MaskedLM", "cls.predictions")):
        folder = tmp_path / name
        shutil.copytree(saved("bert"), folder)
        model = getattr(transformers, f"BertFor{name}")(transformers.BertConfig.from_pretrained(folder))
        model.bert.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        model.save_pretrained(folder)
        made = embedding(folder)
        torch.testing.assert_close(made.eval()(ids_of(TEXT)).tokens(), expected)
        line = made.describe({}).line
        assert line is not None
        assert f"weights of the file, such as {head}." in line


def rename_weights(path: Path, prefix: str) -> None:
    save_file({prefix + name: tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def own_code(folder: Path) -> None:
    """Let the configuration name code of the folder, which must not run."""
    (folder / "own.py").write_text("raise SystemExit('code of a model ran')")
    change_config(folder, model_type="own", auto_map={"AutoModel": "own.Model", "AutoConfig": "own.Config"})


def test_weights_that_are_missing_or_not_used_are_told(tmp_path: Path) -> None:
    path = save_tiny(tmp_path / "bert", "bert") / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.layer.0.attention.self.query.weight"]
    save_file(tensors | {"classifier.weight": torch.zeros(3, 16)}, path, {"format": "pt"})
    line = embedding(path.parent).describe({}).line
    assert line is not None
    assert "not in the file, so at random: 1 weights, such as encoder.layer.0.attention.self.query" in line
    assert "not used: 1 weights of the file, such as classifier.weight" in line


def test_a_folder_of_links_is_read(saved: Saved, tmp_path: Path) -> None:
    """Folders of the Hub's cache have symbolic links to the files."""
    (tmp_path / "linked").mkdir()
    for file in saved("bert").iterdir():
        (tmp_path / "linked" / file.name).symlink_to(file)
    made = embedding(tmp_path / "linked")
    made.save_files(tmp_path / "run")
    assert not any(file.is_symlink() for file in (tmp_path / "run" / "pretrained").iterdir())
    (tmp_path / "linked" / "model.safetensors").unlink()
    (tmp_path / "linked" / "model.safetensors").symlink_to(tmp_path / "nowhere")
    with pytest.raises(HydromelError, match=r"no weights in the safetensors format|cannot be loaded"):
        embedding(tmp_path / "linked")


@pytest.mark.parametrize(("family", "layout"), [("bert", "packed"), ("mpnet", "padded")])
def test_windows_of_very_long_rows_run_in_parts(
    family: str, layout: Layout, saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = embedding(saved(family), window=9, overlap=3, pool="mean", inner_dropout=0.1 if family == "bert" else 0)
    expected = outcome(made, [ids_of(TEXT, layout, 0)])
    calls = []
    monkeypatch.setattr("runner.embeddings.pretrained_transformer.backbone.MOST_PIECES", 12)
    made.backbone.register_forward_hook(lambda module, given, output: calls.append(given[0].rows.n_tokens))
    assert_equal(outcome(made, [ids_of(TEXT, layout, 0)]), expected)
    assert len(calls) > 3
    assert max(calls) <= 12 + 9


def test_many_rows_run_in_parts_outside_of_training(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    made, ids, calls = embedding(saved("bert"), window=9, overlap=3).eval(), ids_of(TEXT, "packed", 0), list[int]()
    made.backbone.register_forward_hook(lambda module, given, output: calls.append(given[0].rows.n_tokens))
    with torch.no_grad():
        expected = made(ids).tokens()
        most = calls.pop() - 1
        monkeypatch.setattr("runner.embeddings.pretrained_transformer.backbone.MOST_PIECES", most)
        torch.testing.assert_close(made(ids).tokens(), expected)
        assert (len(calls), sum(calls)) == (2, most + 1)
        made.train()(ids)
    assert len(calls) == 3, "in training only a long row is divided"


def test_long_words_and_rows_are_read_in_windows(saved: Saved) -> None:
    """A word of 100,000 characters, and a row of 100,000 pieces; its windows run one micro-batch in a forward pass."""
    long = "x" * 100_000
    vocab = Vocab((*WORDS, long, " ".join(["cat"]) * 50), SPECIALS)
    made = embedding(saved("bert"), vocab, pool="last").eval()
    words = made.table.offsets[-2] - made.table.offsets[-3]
    assert words >= 1
    rows = rows_of([30_000, 2])
    ids = torch.full((30_002,), 9, dtype=torch.int32)
    with torch.no_grad():
        vectors = made({"forms": Ragged(ids, rows, "packed")}).tokens()
    assert vectors.shape == (30_002, 16)
    assert bool(vectors.isfinite().all())


def test_a_path_that_is_no_folder_is_not_asked_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\n", encoding="utf-8")
    with pytest.raises(HydromelError, match=r"rows\.csv is a file; give the folder of a saved model"):
        find_files(str(tmp_path / "rows.csv"), None, None)
    with pytest.raises(HydromelError, match="there is no such folder"):
        find_files("../nosuch", None, None)


def test_other_bad_input_is_one_line(saved: Saved, tmp_path: Path) -> None:
    with pytest.raises(HydromelError, match="there is no such folder"):
        embedding(tmp_path / "nowhere")
    with pytest.raises(HydromelError, match="revision=main is for models of the Hub"):
        embedding(saved("bert"), revision="main")
    with pytest.raises(HydromelError, match="the model has positions for 40 pieces"):
        embedding(saved("bert"), window=41)
    with pytest.raises(HydromelError, match="overlap=5 must be less than the 4 pieces"):
        embedding(saved("bert"), window=6, overlap=5)
    with pytest.raises(HydromelError, match="layers: 3 is not one of"):
        embedding(saved("bert"), layers="[3]")


def test_what_is_not_installed_or_not_reachable_is_one_line(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "runner.embeddings.pretrained_transformer"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HydromelError, match=r"^embedding\.path=nobody/such: .* the Hugging Face Hub did not give it"):
        embedding(Path("nobody/such"))
    monkeypatch.setattr(f"{place}.load.find_spec", lambda name: None)
    with pytest.raises(HydromelError, match=r"^embedding\.lora needs peft; run pip install hydromel\[pretrained\]$"):
        embedding(saved("bert"), lora="{rank: 2, alpha: 4, dropout: 0.1, targets: [query]}")
    monkeypatch.setattr(f"{place}.files.find_spec", lambda name: None)
    with pytest.raises(HydromelError, match=r"needs transformers; run pip install hydromel\[pretrained\]$"):
        embedding(saved("bert"))


@pytest.mark.parametrize("family", ["bert", "electra", "roberta", "xlm-roberta", "modernbert"])
def test_joined_pairs_are_read_as_transformers_reads_them(family: str, saved: Saved) -> None:
    from transformers import AutoModel, AutoTokenizer

    made = embedding(saved(family), pool="first").eval()
    model = AutoModel.from_pretrained(saved(family)).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(saved(family), add_prefix_space=True)
    pairs = [([3, 4, 5], [7, 9]), ([8], [3, 4, 11]), ([5, 5], [])]
    joined = [[*first, VOCAB.eos, *second] for first, second in pairs]
    vectors = made(ids_of(joined)).tokens().split([len(row) for row in joined])
    padded = made(ids_of(joined, "padded")).tokens().split([len(row) for row in joined])
    for (first, second), row, mine, other in zip(pairs, joined, vectors, padded, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
        if not second:
            continue
        texts = VOCAB.decode(first), VOCAB.decode(second)
        encoded = tokenizer(*texts, is_split_into_words=True, return_tensors="pt")
        inputs = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
        if made.backbone.n_segments < 2:
            inputs.pop("token_type_ids", None)
        elif made.around.second_segment:
            inputs["token_type_ids"] = torch.tensor(
                [tokenizer.backend_tokenizer.encode(*texts, is_pretokenized=True).type_ids]
            )
        hidden = model(**inputs).last_hidden_state[0]
        places = list(zip(encoded.sequence_ids(), encoded.word_ids(), strict=True))
        firsts = [places.index((0, at)) for at in range(len(first))]
        seconds = [places.index((1, at)) for at in range(len(second))]
        torch.testing.assert_close(mine[: len(first)], hidden[firsts], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(mine[len(first) + 1 :], hidden[seconds], rtol=1e-9, atol=1e-9)
        assert len(row) == len(firsts) + len(seconds) + 1


@pytest.mark.parametrize("family", ["bert", "gpt2", "mpnet"])
def test_sparse_gradients_are_those_of_the_dense_table(family: str, saved: Saved) -> None:
    dense = outcome(embedding(saved(family), inner_dropout=0, dropout=0), [ids_of(TEXT), ids_of(TEXT[:2], "padded")])
    made = embedding(saved(family), inner_dropout=0, dropout=0, sparse=True)
    vectors, gradients = outcome(made, [ids_of(TEXT), ids_of(TEXT[:2], "padded")])
    assert sum(gradient.is_sparse for gradient in gradients) == 1
    assert_equal((vectors, [gradient.to_dense() for gradient in gradients]), dense)


def test_a_table_that_is_not_trained_has_no_sparse_updates(saved: Saved) -> None:
    with pytest.raises(HydromelError, match="the vectors of pieces are not trained"):
        embedding(saved("bert"), sparse=True, frozen="[embeddings]")


BF16 = 0.05  # largest difference of vectors and gradients from float32, relative to their largest number


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama", "mpnet"])
def test_bfloat16_is_close_to_float32(family: str, saved: Saved) -> None:
    """`precision=bf16`: matrix products round to 8 bits, parameters and gradients stay float32."""
    outcomes = []
    for enabled in (False, True):
        made = embedding(saved(family), inner_dropout=0, dropout=0).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outcomes.append(outcome(made, [ids_of(TEXT), ids_of(TEXT, "padded")]))
    (vectors, gradients), (rounded, rounded_gradients) = outcomes
    assert not torch.equal(vectors, rounded)
    assert close_to(rounded, vectors)
    together, both = (torch.cat([part.flatten() for part in parts]) for parts in (rounded_gradients, gradients))
    assert together.dtype == torch.float32
    assert close_to(together, both)


def close_to(rounded: Tensor, exact: Tensor) -> bool:
    return bool((rounded.float() - exact).norm() <= BF16 * exact.norm())
