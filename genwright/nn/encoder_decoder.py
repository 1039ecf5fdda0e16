"""Encoder–decoder: a model that reads one text and writes another (Marian, T5, BART).

Cross-attention ties each target row to its own source, so rows are not packed end to end as for the other text
models. Instead `collate` sorts the rows and cuts them into groups of nearly equal lengths: padding is bounded (see
`WASTE`) and masked everywhere, and losses are taken at real target positions only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genwright.core.content import Message, Part
from genwright.core.data import Example
from genwright.core.errors import UsageError
from genwright.core.model import Encoded, Likelihood, Request, Unlearnable
from genwright.nn import sampling
from genwright.nn.attention import bare
from genwright.nn.lm import plan
from genwright.nn.losses import linear_cross_entropy, sequence_log_probs
from genwright.nn.packing import IGNORE
from genwright.nn.pretrained import Pretrained

WASTE = 0.15  # share of a group's slots that may be padding before another group is begun


@dataclass(frozen=True)
class Group:
    """Rows of nearly equal lengths: `source` (B, S) and `given` (B, T) padded on the right, `seen` (B, S) 1 where the
    source is real, `targets` (B, T) what the decoder has to say at each position, -100 where it is padding. A source
    of sound is (B, bands, frames), and `seen` (B, S) is of the S positions that the encoder makes of it."""

    source: Tensor
    seen: Tensor
    given: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Pairs:
    """Groups of rows; `order` says at which place among the collated rows each row of the groups, in turn, was."""

    groups: tuple[Group, ...]
    order: tuple[int, ...]

    @property
    def targets(self) -> Tensor:
        """All targets, group after group, flat; -100 is padding."""
        return torch.cat([group.targets.flatten() for group in self.groups])

    @property
    def weight(self) -> int:
        return int((self.targets != IGNORE).sum())

    @property
    def slots(self) -> int:
        """Positions that pass through encoder and decoder, padding counted."""
        return sum(group.seen.numel() + group.given.numel() for group in self.groups)

    def to(self, device: torch.device | str) -> Pairs:
        moved = tuple(Group(*(getattr(g, name).to(device) for name in ("source", "seen", "given", "targets")))
                      for g in self.groups)  # fmt: skip
        return replace(self, groups=moved)


class EncoderDecoder(Pretrained):
    """A learner of sequence-to-sequence modelling: Batched, Scorer and Learner of the floor's contracts."""

    engine = "seq2seq"
    goes_on = False  # without a source text there is nothing to start from

    def __init__(self, module: Any, tokenizer: Any, settings: Any):
        super().__init__(module, tokenizer, settings)
        told = getattr(module, "generation_config", None)
        eos = getattr(told, "eos_token_id", None)
        found = {tokenizer.eos_token_id, *(eos if isinstance(eos, (list, tuple)) else [eos])}
        self.ends = frozenset(end for end in found if end is not None)
        self.forced = getattr(told, "forced_bos_token_id", None)

    # -- learning ------------------------------------------------------------------------------------------------------

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """{"tokens": source, "targets": target}: all messages before the answer, joined by line breaks, and the answer.

        Each is cut at its end to `max_length`. Raises Unlearnable for an empty source or answer.
        """
        asked = source_text(example.prompt)
        if not asked.strip():
            raise Unlearnable("there is no text to start from")
        if example.answer.role != "assistant" or not example.answer.text.strip():
            raise Unlearnable("the answer is empty")
        source, lost = self._source(asked)
        said = _ended(self.tokenizer(text_target=example.answer.text)["input_ids"], self.tokenizer.eos_token_id)
        cut = max(0, len(said) - self.max_length)
        sequence = {"tokens": source, "targets": np.asarray(said[: self.max_length], dtype=np.int32)}
        weight = len(sequence["targets"])
        return Encoded((sequence,), len(source) + weight, float(weight), lost + cut)

    def collate(self, items: Sequence[Encoded]) -> Pairs:
        """Rows in groups of nearly equal lengths."""
        rows = [sequence for item in items for sequence in item.sequences]
        groups = grouped([(len(row["tokens"]), len(row["targets"])) for row in rows])
        made = [self._group([rows[i] for i in group]) for group in groups]
        return Pairs(tuple(made), tuple(i for group in groups for i in group))

    def loss(self, batch: Pairs, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy summed over all real targets."""
        total = torch.zeros((), device=self.device)
        for group in batch.groups:
            total = total + self._group_loss(group, self._read(group.source, group.seen), label_smoothing)
        return total

    def logits(self, batch: Pairs) -> Tensor:
        """(N, V) at the N real targets, group after group."""
        return torch.cat([_head(self.module)(self._rows(group)[0]) for group in batch.groups])

    def targets(self, batch: Pairs) -> Tensor:
        """(N,) in the order of `logits`."""
        return batch.targets[batch.targets != IGNORE]

    def logprobs(self, batch: Pairs) -> Tensor:
        """(S,) log-probability of each answer, in the order in which the rows were collated."""
        head, found = _head(self.module), []
        for group in batch.groups:
            rows, targets, owners = self._rows(group)
            found.append(sequence_log_probs(
                rows, head.weight.to(rows.dtype), targets, owners, len(group.targets), bias=_cast(head.bias, rows),
                scale=head.scale,
            ))  # fmt: skip
        place = torch.tensor(batch.order, device=found[0].device)
        return torch.cat(found)[place.argsort()]

    # -- answering -----------------------------------------------------------------------------------------------------

    def generate(self, request: Request) -> Iterator[Part]:
        """Stream an answer: text deltas, then an empty part whose `meta` says why it ended.

        Raises UsageError when there is no text to start from, or for a constraint that cannot be enforced.
        """
        with self.answering():
            for _, part in self._decode([request], [self._asked(request)]):
                yield part

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers as they are ready, decoded together; greedy answers are those of `generate`."""
        sources = [self._asked(request) for request in requests]
        for rows in sampling.batches([len(ids) for ids, _ in sources], [r.max_new_tokens for r in requests]):
            with self.answering():
                parts = self._decode([requests[i] for i in rows], [sources[i] for i in rows])
                for place, answer in sampling.answers(parts, len(rows)):
                    yield rows[place], answer

    def likelihood(self, examples: Sequence[Example]) -> Iterator[Likelihood]:
        """What the model makes of each reference answer. Raises UsageError for an example without an answer."""
        items = []
        for number, example in enumerate(examples):
            try:
                items.append(self.encode(example))
            except Unlearnable as error:
                raise UsageError(f"Example {number} has no likelihood: {error}.", "Leave it out.") from None
        found: dict[int, float] = {}
        for rows in plan(items):
            with self.answering():
                sums = self.logprobs(self.collate([items[i] for i in rows])).tolist()
            found |= dict(zip(rows, sums, strict=True))
        for index, item in enumerate(items):
            yield Likelihood(-found[index], int(item.weight), len(examples[index].answer.text))

    # -- details -------------------------------------------------------------------------------------------------------

    def _source(self, text: str) -> tuple[np.ndarray, int]:
        ids = _ended(self.tokenizer(text)["input_ids"], self.tokenizer.eos_token_id)
        cut = max(0, len(ids) - self.max_length)
        if cut:
            ids = [*ids[: self.max_length - 1], ids[-1]]
        return np.asarray(ids, dtype=np.int32), cut

    def _group(self, rows: Sequence[dict[str, Any]]) -> Group:
        source, seen = padded([row["tokens"] for row in rows], 0)
        targets, _ = padded([row["targets"] for row in rows], IGNORE)
        given = torch.cat([torch.full((len(rows), 1), self._start()), targets[:, :-1]], 1)
        given = torch.where(given == IGNORE, 0, given)
        device = self.device
        return Group(source.to(device), seen.to(device), given.to(device), targets.to(device))

    def _start(self) -> int:
        config = bare(self.module).config
        told = getattr(config, "decoder_start_token_id", None)
        return int(next(x for x in (told, config.pad_token_id, self.tokenizer.pad_token_id, 0) if x is not None))

    def _group_loss(self, group: Group, read: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Of sources that were read, summed."""
        rows, targets, _ = self._rows(group, read)
        head = _head(self.module)
        return linear_cross_entropy(
            rows, head.weight.to(rows.dtype), targets, bias=_cast(head.bias, rows), scale=head.scale,
            label_smoothing=label_smoothing,
        )  # fmt: skip

    def _rows(self, group: Group, read: dict[str, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states (N, d) at the real targets, the targets (N,), and the row that each belongs to (N,)."""
        read = self._read(group.source, group.seen) if read is None else read
        hidden = bare(self.module).get_decoder()(input_ids=group.given, use_cache=False, **read).last_hidden_state
        owners, _ = (group.targets != IGNORE).nonzero(as_tuple=True)
        real = group.targets != IGNORE
        return hidden[real], group.targets[real], owners

    def _read(self, source: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """What the decoder is told of a source that was read: keyword arguments, one row a source."""
        read = bare(self.module).get_encoder()(input_ids=source, attention_mask=seen).last_hidden_state
        return {"encoder_hidden_states": read, "encoder_attention_mask": seen}

    def _asked(self, request: Request) -> tuple[list[int], int]:
        text = source_text(request.messages)
        if not text.strip():
            raise UsageError("There is no text to start from.", "Put it into the last user message.")
        ids, cut = self._source(text)
        return ids.tolist(), cut

    def _decode(
        self, requests: Sequence[Request], sources: Sequence[tuple[list[int], int]]
    ) -> Iterator[tuple[int, Part]]:
        begun = [self._start(), *([] if self.forced is None else [int(self.forced)])]
        source, seen = (x.to(self.device) for x in padded([np.asarray(ids) for ids, _ in sources], 0))
        steps = PairedSteps(self.module, self._read(source, seen), begun, never=self._never())
        rows = sampling.prepare(
            requests, [[] for _ in requests], tokenizer=self.tokenizer, ends=self.ends, vocabulary=steps.head.rows,
            room=self.context - len(begun), plain=[False] * len(requests),
            facts=[{"prompt_tokens": len(ids), **({"cut": cut} if cut else {})} for ids, cut in sources],
        )  # fmt: skip
        yield from sampling.decode(steps, rows, self.tokenizer, self.ends)

    def _never(self) -> list[int]:
        """Tokens that no answer holds: padding (Marian's decoder begins with it) unless it is the end itself."""
        pad = self.tokenizer.pad_token_id
        return [pad] if pad is not None and pad not in self.ends else []


class PairedSteps:
    """A decoder beside sources that were read once (`read` as `_read` gives it); it keeps keys and values of both."""

    def __init__(self, model: nn.Module, read: dict[str, Tensor], begun: Sequence[int], never: Sequence[int]):
        from transformers import DynamicCache, EncoderDecoderCache

        self.decoder, self.head = bare(model).get_decoder(), _head(model)
        self.read, self.begun, self.never = read, list(begun), list(never)
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def start(self) -> Tensor:
        read = self.read["encoder_hidden_states"]
        return self._forward(torch.tensor([self.begun] * len(read), device=read.device))

    def step(self, tokens: Tensor) -> Tensor:
        return self._forward(tokens[:, None])

    def keep(self, rows: Sequence[int]) -> None:
        chosen = torch.tensor(rows, device=self.read["encoder_hidden_states"].device)
        self.cache.batch_select_indices(chosen)
        self.read = {name: tensor[chosen] for name, tensor in self.read.items()}

    def _forward(self, tokens: Tensor) -> Tensor:
        kept: Any = {"past_key_values": self.cache, "use_cache": True}
        hidden = self.decoder(input_ids=tokens, **self.read, **kept).last_hidden_state
        logits = self.head(hidden[:, -1]).float()
        logits[:, self.never] = float("-inf")
        return logits


@dataclass(frozen=True)
class _Head:
    """logits = scale · hidden Wᵀ + bias."""

    linear: Any
    bias: Tensor | None
    scale: float

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.linear.weight
        return weight

    @property
    def rows(self) -> int:
        return int(self.weight.shape[0])

    def __call__(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.linear(hidden) * self.scale
        return logits if self.bias is None else logits + self.bias.to(logits.dtype)


def _head(module: nn.Module) -> _Head:
    """The head of Marian and BART has a constant bias; T5 scales hidden states where its embeddings are shared."""
    inner = bare(module)
    bias = getattr(inner, "final_logits_bias", None)
    scaled = inner.config.model_type in ("t5", "mt5", "umt5", "longt5") and getattr(
        inner.config, "scale_decoder_outputs", inner.config.tie_word_embeddings
    )
    scale = float(inner.config.d_model) ** -0.5 if scaled else 1.0
    return _Head(inner.get_output_embeddings(), None if bias is None else bias[0], scale)


def grouped(lengths: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Indices of rows (source length, target length) in groups with at most `WASTE` of padding."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    groups: list[list[int]] = []
    for index in order:
        if groups:
            rows = [lengths[i] for i in (*groups[-1], index)]
            slots = len(rows) * (max(s for s, _ in rows) + max(t for _, t in rows))
            if sum(s + t for s, t in rows) >= (1 - WASTE) * slots:
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups


def source_text(messages: Sequence[Message]) -> str:
    """What an encoder reads: the words of all messages, line by line."""
    return "\n".join(message.text for message in messages if message.text)


def padded(rows: Sequence[np.ndarray], filler: int) -> tuple[Tensor, Tensor]:
    """Rows (B, T) filled up on the right, and 1 where they are real."""
    longest = max(len(row) for row in rows)
    values = torch.full((len(rows), longest), filler, dtype=torch.long)
    real = torch.zeros((len(rows), longest), dtype=torch.long)
    for place, row in enumerate(rows):
        values[place, : len(row)] = torch.as_tensor(np.asarray(row, dtype=np.int64))
        real[place, : len(row)] = 1
    return values, real


def _ended(ids: Sequence[int], end: int | None) -> list[int]:
    ids = list(ids)
    return ids if end is None or (ids and ids[-1] == end) else [*ids, end]


def _cast(bias: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(rows.dtype)
