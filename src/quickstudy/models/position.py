"""Position: the id of the first token's position, and how many tokens a model can read.

    BERT       ids 0, 1, 2, …        rows of the table                  tokens that fit: rows
    RoBERTa    ids 2, 3, 4, …        the padding token has row 1        tokens that fit: rows − 2

Both follow from the model's table of position embeddings: a table with a padding row starts after that row. Families
with relative positions have no table. Some of them state a limit in their configuration (DeBERTa, ModernBERT); others
have no limit at all (XLNet, T5), and only the tokenizer may state one.
"""

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

_NO_LIMIT = 10**6  # tokenizers without a limit state 10^30


def find_first_position(model: nn.Module) -> int:
    """Return the position id of a sequence's first token."""
    table = _find_table(model)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def find_token_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return how many tokens, special ones included, a sequence may have; None if there is no limit."""
    table = _find_table(model)
    stated = getattr(model.config, "max_position_embeddings", None)  # XLNet states -1, T5 nothing
    limits = [stated] if isinstance(stated, int) and stated > 0 else []
    if table is not None:
        limits.append(table.num_embeddings)
    if limits:
        return min(limits) - find_first_position(model)
    return tokenizer.model_max_length if 0 < tokenizer.model_max_length < _NO_LIMIT else None


def _find_table(model: nn.Module) -> nn.Embedding | None:
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            return module
    return None
