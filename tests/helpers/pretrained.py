"""Tiny pretrained transformers of many families, with random weights and tokenizers made here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch

WORDS = ("the", "cat", "sat", "on", "a", "mat", "walking", "Zürich", "don't", "x1", "cats", "walked", "3.14", "ß")
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "initializer_range": 0.4,
}
# configurations of transformers by name, with a tokenizer of their family
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "bert": ("BertConfig", SIZES, "wordpiece"),
    "electra": ("ElectraConfig", SIZES | {"embedding_size": 8}, "wordpiece"),
    "albert": ("AlbertConfig", SIZES | {"embedding_size": 8, "hidden_dropout_prob": 0.1}, "wordpiece"),
    "distilbert": (
        "DistilBertConfig",
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40},
        "wordpiece",
    ),
    "roberta": ("RobertaConfig", SIZES, "bytes"),
    "xlm-roberta": ("XLMRobertaConfig", SIZES, "unigram"),
    "modernbert": (
        "ModernBertConfig",
        SIZES | {"local_attention": 4, "global_attn_every_n_layers": 2, "embedding_dropout": 0.1, "mlp_dropout": 0.1},
        "wordpiece",
    ),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40}, "bytes_gpt"),
    "llama": ("LlamaConfig", SIZES | {"num_key_value_heads": 1, "attention_dropout": 0.1}, "bytes_gpt"),
    "qwen3": ("Qwen3Config", SIZES | {"num_key_value_heads": 1, "head_dim": 8}, "bytes_gpt"),
    "mistral": ("MistralConfig", SIZES | {"num_key_value_heads": 1, "sliding_window": 3}, "bytes_gpt"),
}
UNSUPPORTED = {"deberta-v2": ("DebertaV2Config", SIZES, "wordpiece"), "mpnet": ("MPNetConfig", SIZES, "bytes")}


CAUSAL = ("gpt2", "llama", "qwen3", "mistral")


def save_tiny(folder: Path, family: str, with_head: bool = False, seed: int = 7) -> Path:
    """Save a model with random weights, and its tokenizer, to `folder`, as `save_pretrained` does.

    `with_head`: a language model, with its output layer.
    """
    import transformers

    name, options, kind = (FAMILIES | UNSUPPORTED)[family]
    tokenizer = tokenizers()[kind]()
    ids = {at: getattr(tokenizer, at) for at in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = getattr(transformers, name)(vocab_size=len(tokenizer), **options, **ids)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        auto = transformers.AutoModelForCausalLM if with_head else transformers.AutoModel
        model = auto.from_config(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@cache
def tokenizers() -> dict[str, Callable[[], Any]]:
    return {
        "wordpiece": _wordpiece,
        "bytes": lambda: _bytes(["<s>", "<pad>", "</s>", "<unk>"], wrapped=True),
        "bytes_gpt": lambda: _bytes(["<|endoftext|>"], wrapped=False),
        "bytes_no_space": lambda: _bytes(["<|endoftext|>"], wrapped=False, space=False),
        "bytes_fallback": _bytes_fallback,
        "unigram": _unigram,
    }


def _wordpiece() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789'."
    vocab = [*special, *letters, *(f"##{letter}" for letter in letters), "the", "cat", "walk", "##ing", "##ed"]
    made = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(vocab)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def _bytes(special: list[str], wrapped: bool, space: bool = True) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    if not wrapped:
        end = special[0]
        return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=end, eos_token=end, unk_token=end)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, cls_token="<s>", sep_token="</s>", **names)


def _bytes_fallback() -> Any:
    """SentencePiece with bytes for unknown characters, as in Llama 2; two special pieces and an unknown one."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789'.<>Z", "▁"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("c", "a"), ("ca", "t")]
    vocab = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *map("".join, merges)]
    ids = {piece: at for at, piece in enumerate(vocab)}
    made = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def save_tokenizer(folder: Path, kind: str) -> Any:
    """Replace the tokenizer of a saved model, and return the new one."""
    made = tokenizers()[kind]()
    made.save_pretrained(folder)
    return made


def _unigram() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = ["▁", "▁the", "▁cat", "▁walk", "ing", "ed", "s", "at", *"abcdefghijklmnopqrstuvwxyzZü0123456789'."]
    vocab = [*((piece, 0.0) for piece in special), *((piece, -1.0 - at / 10) for at, piece in enumerate(pieces))]
    made = Tokenizer(models.Unigram(vocab, unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, cls_token="<s>", sep_token="</s>", **names)


def trained_tokenizer(family: str, texts: Iterable[str]) -> Any:
    """Return a tokenizer of a family, trained on texts, as models of this family have it."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<s>", "</s>"]
    common: dict[str, Any] = {"vocab_size": 2000, "special_tokens": special, "show_progress": False}
    if family.startswith("wordpiece") or family == "dropping":
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        bert = normalizers.BertNormalizer(lowercase=family != "wordpiece cased")
        made.normalizer = (
            normalizers.Sequence([bert, normalizers.Replace(Regex("[^ -~]"), "")]) if family == "dropping" else bert
        )
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(**common)
    elif family == "byte-level bpe":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **common)
    else:  # SentencePiece, as converted: XLM-R, T5
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
        splits = [] if family == "unigram t5" else [pre_tokenizers.WhitespaceSplit()]
        made.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.Metaspace(prepend_scheme="always")])
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **common)
    made.train_from_iterator(texts, trainer)
    ends = [("<s>", 2), ("</s>", 3)]
    single, pair = (
        ("$A </s>", "$A </s> $B </s>") if family == "unigram t5" else ("<s> $A </s>", "<s> $A </s> $B:1 </s>:1")
    )
    made.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ends)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def change_config(folder: Path, **changed: object) -> None:
    """Change entries of a saved model's `config.json`."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
