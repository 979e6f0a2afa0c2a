"""Language head: which token stands under a mask, from the state of the mask.

    logits = E LayerNorm(gelu(W h + b)) + c          E: the encoder's token embeddings, shared (V, D)

The head of BERT (Devlin et al. 2019, arXiv:1810.04805); its own parameters are W, b, the norm's and c.
"""

import torch
from torch import Tensor, nn

from quickstudy.errors import RecipeError
from quickstudy.models.encoder import Encoder


class LanguageHead(nn.Module):
    """The head of masked-language modelling on an encoder.

    Args:
        encoder: Gives the token embeddings; they stay the encoder's.
        seed: The head's weights follow from it.

    Raises:
        RecipeError: The tokenizer has no mask, or the embeddings are of another size than the states.
    """

    def __init__(self, encoder: Encoder, *, seed: int) -> None:
        super().__init__()
        embeddings = encoder.model.get_input_embeddings().weight
        vocabulary, size = embeddings.shape
        if encoder.tokenizer.mask_token_id is None or size != encoder.model.config.hidden_size:
            raise RecipeError(
                "this encoder cannot be trained by masked-language modelling",
                fix="Its tokenizer needs a mask token, and its token embeddings the size of its states.",
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.dense = nn.Linear(size, size)
            nn.init.normal_(self.dense.weight, std=0.02)
            nn.init.zeros_(self.dense.bias)
        self.norm = nn.LayerNorm(size)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.to(embeddings)

    def forward(self, states: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits (B, V) of token states (B, D), given the token embeddings (V, D)."""
        hidden = self.norm(nn.functional.gelu(self.dense(states)))
        return nn.functional.linear(hidden, embeddings, self.bias)
