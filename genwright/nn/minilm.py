"""MiniLM: English sentences as vectors of what they mean (all-MiniLM-L6-v2, Reimers & Gurevych 2019; Wang et al.
2020).

It judges and conditions nothing, so that a picture model is not measured by the words it was told with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genwright.core.errors import MissingExtra

from .weights import card_folder, check_safetensors

CARD = "all-minilm-l6-v2"
WIDTH = 384
_TOKENS, _AT_ONCE = 128, 64  # its training saw no more than 128


class MiniLM:
    """Call it with texts. Raises ModelError when its card has not been fetched, MissingExtra without the extra
    `text`."""

    def __init__(self) -> None:
        folder = card_folder(CARD)
        try:
            from tokenizers import Tokenizer
            from transformers import BertConfig, BertModel
        except ImportError:
            raise MissingExtra("transformers", "text") from None
        from safetensors.torch import load_file

        check_safetensors(folder / "model.safetensors")
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(_TOKENS)
        self._tokenizer.enable_padding()
        self._network: Any = BertModel(
            BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False
        ).eval()
        state = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in state.items() if not name.startswith("pooler.")}
        kept.pop("embeddings.position_ids", None)  # 0, 1, 2 …: no weight
        self._network.load_state_dict(kept)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(rows, 384) unit vectors, float32: the mean over a text's tokens."""
        found = np.zeros((len(texts), WIDTH), np.float32)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(order), _AT_ONCE):
            rows = order[start : start + _AT_ONCE]
            read = self._tokenizer.encode_batch([texts[row] for row in rows])
            ids, mask = torch.tensor([one.ids for one in read]), torch.tensor([one.attention_mask for one in read])
            with torch.inference_mode():
                hidden = self._network(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            found[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return found
