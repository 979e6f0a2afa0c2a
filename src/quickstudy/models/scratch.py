"""Scratch: an encoder from nothing, a tokenizer trained on a text and a small BERT with random weights.

The tokenizer is BERT's: lower case, WordPiece (Devlin et al. 2019, arXiv:1810.04805), trained by the package
`tokenizers`. Features are means of token states of unit length, and pairs are read separately, as sentence encoders do:
an encoder that has seen no pairs in one sequence cannot read them so.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from quickstudy.errors import RecipeError
from quickstudy.models.encoder import Encoder, EncoderSettings
from quickstudy.seeding import derive_seed

_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_INSIDE = "##"  # what a piece begins with that does not begin a word
_ALPHABET = 1000  # different characters that the vocabulary has at most


@dataclass(frozen=True, slots=True)
class ScratchSize:
    """The size of a new encoder.

    Attributes:
        vocabulary: Tokens of the vocabulary.
        layers: Transformer layers L.
        hidden_size: Hidden size D.
        heads: Attention heads of a layer; the hidden size is a multiple of them.
        max_length: Tokens of a sequence.

    Raises:
        RecipeError: The sizes do not fit together.
    """

    vocabulary: int = 8000
    layers: int = 4
    hidden_size: int = 256
    heads: int = 4
    max_length: int = 128

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise RecipeError(
                f"a hidden size of {self.hidden_size} cannot be divided among {self.heads} heads",
                fix=f"Use a multiple of {self.heads}.",
            )


def make_encoder(texts: Iterable[str], size: ScratchSize, *, seed: int) -> Encoder:
    """Return an untrained encoder.

    Args:
        texts: What the tokenizer is trained on; they are gone through twice.
        size: Its size.
        seed: Its weights follow from it.
    """
    tokenizer = train_tokenizer(texts, size.vocabulary)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden_size,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.hidden_size,
        max_position_embeddings=size.max_length,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "scratch"))
        model = BertModel(config)
    return Encoder(model, tokenizer, EncoderSettings("mean", "separate", normalize=True, max_length=size.max_length))


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer in lower case that was trained on texts; the same one every time.

    Args:
        texts: They are gone through twice.
        vocabulary: Most tokens that it has.

    >>> tokenizer = train_tokenizer(["the late fee", "the late bank"] * 9, 60)
    >>> tokenizer.tokenize("The late [MASK]")
    ['the', 'late', '[MASK]']
    """
    # The trainer numbers the pieces inside words in an order that changes from run to run, and breaks ties by these
    # numbers. Pieces that are given to it beforehand keep their numbers.
    alphabet = _alphabet(texts)
    pieces = [f"{_INSIDE}{character}" for character in alphabet]
    trained = _lower_case(models.WordPiece(unk_token=_SPECIAL["unk_token"]))
    trained.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=vocabulary,
            special_tokens=[*_SPECIAL.values(), *pieces],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        ),
    )
    return _as_bert(_lower_case(models.WordPiece(trained.get_vocab(), unk_token=_SPECIAL["unk_token"])))


def _alphabet(texts: Iterable[str]) -> list[str]:
    """Return the most frequent characters of texts in lower case, in order."""
    normalizer, counts = normalizers.BertNormalizer(lowercase=True), Counter[str]()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    del counts[" "]
    frequent = sorted(counts, key=lambda character: (-counts[character], character))[:_ALPHABET]
    return sorted(frequent)


def _lower_case(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=_INSIDE)
    return tokenizer


def _as_bert(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a tokenizer that marks the begin and the end of texts as BERT does."""
    begin, end = _SPECIAL["cls_token"], _SPECIAL["sep_token"]
    tokenizer.add_special_tokens(list(_SPECIAL.values()))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "token_type_ids", "attention_mask"], **_SPECIAL
    )
