"""Tiny: random encoders of every family, with a real tokenizer, and tasks that can be learned from their words.

For tests: an encoder of some ten thousand parameters is made in milliseconds, and float64 checks through it take
seconds.
"""

from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from quickstudy.models.batch import EncodedSet, encode_set
from quickstudy.models.encoder import Encoder, EncoderSettings
from quickstudy.models.target import Target, make_target
from quickstudy.seeding import rng
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task

WORDS = [
    *("good", "great", "fine", "bad", "awful", "poor", "film", "book", "bank", "loan", "card", "fee", "dose", "pill"),
    *(
        "rash",
        "scan",
        "the",
        "a",
        "is",
        "was",
        "not",
        "very",
        "it",
        "this",
        "and",
        "or",
        "to",
        "of",
        "in",
        "on",
        "late",
    ),
    *("early", "high", "low", "new", "old", "big", "small", "red", "blue", "green", "one", "two", "three"),
]

Settings = dict[str, int | bool | list[str]]

_BERT: Settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES: dict[str, Settings] = {
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "mpnet": _BERT,
    "electra": _BERT | {"embedding_size": 8},
    "deberta": _BERT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": _BERT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 16},
    "modernbert": _BERT | {"num_hidden_layers": 3, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2},
}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer with BERT's special tokens."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*specials, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
    )


def tiny_encoder(family: str = "bert", dtype: torch.dtype = torch.float32, **settings: Any) -> Encoder:
    """Return a random encoder of a family. It has the same weights every time."""
    config = AutoConfig.for_model(family, vocab_size=64, max_position_embeddings=64, pad_token_id=0, **FAMILIES[family])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
        for parameter in model.parameters():  # with the usual 0.02 all texts look alike to such a small model
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    return Encoder(model.to(dtype), tiny_tokenizer(), EncoderSettings(**{"max_length": 32, **settings}))


def word_task(name: str = "tone", *, rows: int = 60, n_way: int = 2, pair: bool = False, seed: int = 0) -> Task:
    """Return a task whose label follows from a word of the text, and is described by one.

    Each split has `rows` rows, and its labels are balanced.
    """
    cues: list[tuple[str, ...]] = [
        ("good", "great", "fine"),
        ("bad", "awful", "poor"),
        ("red", "blue", "green"),
        ("one", "two", "three"),
    ]
    if n_way > len(cues):
        cues = [(word,) for word in WORDS[:n_way]]
    splits = {}
    for split in ("train", "test"):
        random = rng(seed, name, split)
        examples = []
        for i in range(rows):
            label = i % n_way
            words = [*random.choice(WORDS[6:], size=random.integers(2, 9)), random.choice(cues[label])]
            text = " ".join(random.permutation(words))
            second = " ".join(random.choice(WORDS, size=4)) if pair else None
            examples.append(Example(text, second, label))
        splits[split] = ListSplit(examples)
    names = [f"class{i}" for i in range(n_way)]
    descriptions = {label: words[0] for label, words in zip(names, cues, strict=False)}
    return Task(name, splits, tuple(names), pair=pair, label_descriptions=descriptions)


def score_task(name: str = "score", rows: int = 60) -> Task:
    """Return a regression task. The score is the number of good words in a text."""
    splits = {}
    for split in ("train", "test"):
        random = rng(0, name, split)
        texts = [list(random.choice(WORDS, size=6)) for _ in range(rows)]
        splits[split] = ListSplit(
            Example(" ".join(words), label=float(sum(w in ("good", "great", "fine", "new") for w in words)))
            for words in texts
        )
    return Task(name, splits, kind="regression", metric="pearson_spearman")


def tiny_support(encoder: Encoder) -> tuple[EncodedSet, Target]:
    """Return four labelled texts in tokens, and their target, to adapt a learner to.

    >>> support, target = tiny_support(tiny_encoder())
    >>> support.labels.tolist(), target.label_names
    ([0, 0, 1, 1], ('good', 'bad'))
    """
    texts = ("a good film", "a great book", "a bad film", "an awful book")
    examples = [Example(text, label=position // 2) for position, text in enumerate(texts)]
    return encode_set(encoder, examples), make_target("classification", ("good", "bad"), ("good", "bad"))
