"""Placeholder tokens: new words whose embedding rows are the only thing that trains.

Textual inversion (arXiv:2208.01618) needs gradients for a few rows of the token table. diffusers' script trains the
whole table and restores the other rows after every step; here the rows are a parameter of their own beside the table.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from r2r.errors import InputError
from r2r.models.stable_diffusion import StableDiffusion


class PlaceholderEmbedding(nn.Module):
    """A token table with trainable rows appended: ids from `first_id` on look up `vectors`."""

    def __init__(self, table: nn.Embedding, first_id: int, vectors: Float[Tensor, "v d"]) -> None:
        super().__init__()
        self.table, self.first_id = table, first_id
        self.vectors = nn.Parameter(vectors)

    @property
    def weight(self) -> Float[Tensor, "n d"]:
        """The frozen table, as callers of `nn.Embedding` expect to find it."""
        return self.table.weight

    def forward(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """Embed token ids."""
        known = self.table(ids.clamp(max=self.first_id - 1))
        new = F.embedding((ids - self.first_id).clamp(min=0), self.vectors).to(known.dtype)
        return torch.where((ids < self.first_id).unsqueeze(-1), known, new)


def add_placeholder(model: StableDiffusion, token: str, num_vectors: int, initializer: str) -> list[nn.Parameter]:
    """Add `token` (and `token_1`, ... as diffusers names them) to every text encoder of the model.

    Every vector starts from an embedding of the `initializer` words, cycled. Returns one (num_vectors, d) parameter in
    float32 for each text encoder.

    Raises:
        InputError: the token is a word already, is not one word, or the initializer is empty.
    """
    if num_vectors < 1:
        raise InputError(f"num_vectors={num_vectors} must be at least 1")
    if not token or any(character.isspace() for character in token):
        raise InputError(f"placeholder_token={token!r} must be one word, such as '<rendered>'")
    names = [token, *(f"{token}_{index}" for index in range(1, num_vectors))]
    parameters: list[nn.Parameter] = []
    for encoder, tokenizer in model.text_parts():
        start = tokenizer(initializer, add_special_tokens=False).input_ids
        if not start:
            raise InputError(f"initializer={initializer!r} has no token; give a word such as 'render'")
        if taken := set(names) & set(tokenizer.get_vocab()):
            raise InputError(f"placeholder_token={token!r}: the tokenizer has {sorted(taken)} already; choose another")
        tokenizer.add_tokens(names)
        table = encoder.get_input_embeddings()
        rows = [start[index % len(start)] for index in range(num_vectors)]
        vectors = table.weight[rows].detach().clone().float()
        embedding = PlaceholderEmbedding(table, tokenizer.convert_tokens_to_ids(token), vectors)
        encoder.set_input_embeddings(embedding)
        parameters.append(embedding.vectors)
    return parameters
