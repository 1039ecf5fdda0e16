"""New words: embeddings that a text encoder learns beside those that it knows (textual inversion, Gal et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genwright.core.errors import UsageError


class NewWords(nn.Module):
    """A table of embeddings some of whose rows learn; the others stay bit for bit.

    `token` is the word, `ids` (k,) its numbers in the tokenizer, `rows` holds (k, d), what is learned.
    """

    def __init__(self, table: nn.Embedding, token: str, ids: list[int]):
        super().__init__()
        self.table, self.token, self.ids = table, token, ids
        self.rows = nn.Embedding.from_pretrained(table.weight[ids].detach().clone().float(), freeze=False)

    @property
    def weight(self) -> Tensor:
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.table(ids)
        for number, row in zip(self.ids, self.rows.weight, strict=True):
            found = torch.where((ids == number)[..., None], row.to(found.dtype), found)
        return found


def new_words(pipeline: Any, token: str, start: str, vectors: int, *, seed: int) -> NewWords:
    """The word in tokenizer and text encoder, its embeddings ready to be learned.

    They begin as those of `start`, at random when it is empty, and as they are when the word was learned before.
    Raises UsageError for a pipeline that reads no such words, a `start` without tokens, a word of the language.
    """
    if not hasattr(pipeline, "load_textual_inversion") or getattr(pipeline, "text_encoder_2", None) is not None:
        raise UsageError(f"A {type(pipeline).__name__} learns no new words here.", "Use `method: lora`.")
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    if token not in tokenizer.get_vocab():
        table = encoder.get_input_embeddings()
        pipeline.load_textual_inversion({token: _beginning(tokenizer, table, start, vectors, seed)})
    elif token not in tokenizer.get_added_vocab():
        raise UsageError(f"{token!r} is a word that the model knows already.", "Choose a new one, such as <my-thing>.")
    known, ids = tokenizer.get_vocab(), [tokenizer.convert_tokens_to_ids(token)]
    while f"{token}_{len(ids)}" in known:  # diffusers' names of the second and further vectors
        ids.append(known[f"{token}_{len(ids)}"])
    words = NewWords(encoder.get_input_embeddings().requires_grad_(False), token, ids)
    encoder.set_input_embeddings(words)
    return words


def _beginning(tokenizer: Any, table: nn.Embedding, start: str, vectors: int, seed: int) -> Tensor:
    if not start:
        chance = torch.Generator().manual_seed(seed)
        return torch.randn(vectors, table.embedding_dim, generator=chance) * table.weight.std().cpu()
    ids = tokenizer(start, add_special_tokens=False)["input_ids"]
    if not ids:
        raise UsageError("`start` has no tokens.", "Give a word that is near to what is to be learned.")
    return table.weight[[ids[i % len(ids)] for i in range(vectors)]].detach().clone()
