"""Encoder: a bidirectional model (BERT, RoBERTa, ModernBERT …) that sorts texts by label or fills in masked words.

Rows are packed as for decoders: each segment attends to itself in both directions, and no padding passes through a
linear layer. A text to be sorted is everything before the answer; the label is the answer's words (or `meta["label"]`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genwright.core.content import Message, Part
from genwright.core.data import Example
from genwright.core.errors import ModelError, UsageError
from genwright.core.model import Encoded, Likelihood, Request, Unlearnable
from genwright.nn.attention import bare, head, lm_loss
from genwright.nn.lm import plan, supervised
from genwright.nn.losses import cross_entropy_sum
from genwright.nn.packing import IGNORE, Packed, pack
from genwright.nn.pretrained import Pretrained, seeded
from genwright.nn.text import special_ids, token_ids


class Encoder(Pretrained):
    """A learner of sequence classification (`labels` are known or set) or of masked language modelling."""

    engine = "encoder"
    tells = goes_on = False  # only its own labels have a likelihood, and it writes no text

    def __init__(self, module: Any, tokenizer: Any, settings: Any):
        super().__init__(module, tokenizer, settings)
        self.classifies = type(bare(module)).__name__.endswith("ForSequenceClassification")
        self.answers = self.classifies  # one that fills in masks has no answer to an ordinary question
        self.labels: tuple[str, ...] = _labels_of(module.config) if self.classifies else ()
        self._special = special_ids(tokenizer)

    def set_labels(self, labels: Sequence[str], *, seed: int = 0) -> None:
        """The labels in order. A head that was trained on the same ones is kept, else a new one is drawn from `seed`.

        Raises UsageError for fewer than two labels, for one that stands twice, or for a model that fills in masks.
        """
        labels = tuple(str(label) for label in labels)
        if not self.classifies:
            raise UsageError("This encoder fills in masked words; it has no labels.", "Load it with `head: labels`.")
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise UsageError(f"Labels must be two or more different ones, not {list(labels)[:8]}.", "Check the data.")
        if labels == self.labels:
            return
        if hasattr(self.module, "disable_adapter"):
            raise UsageError("The labels of a tuned adapter cannot be changed.", "Start from its base model.")
        inner = bare(self.module)
        layer, put = _last_linear(inner)
        with seeded(seed):
            new = nn.Linear(layer.in_features, len(labels), bias=layer.bias is not None)
            nn.init.normal_(new.weight, std=getattr(inner.config, "initializer_range", 0.02))
            if new.bias is not None:
                nn.init.zeros_(new.bias)
        put(new.to(layer.weight.device, layer.weight.dtype))
        inner.num_labels = inner.config.num_labels = len(labels)
        inner.config.id2label = dict(enumerate(labels))
        inner.config.label2id = {label: number for number, label in enumerate(labels)}
        self.labels = labels

    # -- learning ------------------------------------------------------------------------------------------------------

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """To sort: the text's tokens and its label's number. To fill in: the tokens of all words of the conversation,
        each its own target (the objective `masked_lm` hides some), in windows of `max_length`.

        A text that is too long keeps its start. Raises Unlearnable for an unknown label or an empty text.
        """
        return self._labelled(example) if self.classifies else self._words(example)

    def _labelled(self, example: Example) -> Encoded:
        if not self.labels:
            raise ModelError("The labels are not known yet.", "Call set_labels, or give `labels` in the recipe.")
        said = (example.answer.text, example.answer.text.strip(), str(example.meta.get("label", "")))
        label = next((one for one in said if one in self.labels), None)
        if label is None:
            raise Unlearnable(f"the label {said[0][:40]!r} is none of {', '.join(self.labels)[:80]}")
        if len(example.messages) < 2:
            raise Unlearnable("there is no text before the label")
        tokens, cut = self._tokens(_question(example.prompt))
        sequence = {
            "tokens": tokens, "targets": np.full(len(tokens), IGNORE, dtype=np.int32),
            "label": np.int64(self.labels.index(label)),
        }  # fmt: skip
        return Encoded((sequence,), len(tokens), 1.0, cut)

    def _words(self, example: Example) -> Encoded:
        text = "\n".join(m.text for m in example.messages if m.text)
        ids = token_ids(self.tokenizer, text)
        if not ids:
            raise Unlearnable("the text is empty")
        room = self.max_length - len(self._framed([]))
        sequences = []
        for start in range(0, len(ids), room):
            tokens = np.asarray(self._framed(ids[start : start + room]), dtype=np.int32)
            words = ~np.isin(tokens, list(self._special))
            sequences.append({"tokens": tokens, "targets": np.where(words, tokens, IGNORE).astype(np.int32)})
        weight = float(sum(int((s["targets"] != IGNORE).sum()) for s in sequences))
        if not weight:
            raise Unlearnable("the text has no words")
        return Encoded(tuple(sequences), sum(len(s["tokens"]) for s in sequences), weight)

    def collate(self, items: Sequence[Encoded]) -> Packed:
        """All sequences in one row; labels are `extra["label"]`, (S,)."""
        return pack(sequence for item in items for sequence in item.sequences)

    def loss(self, batch: Packed, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy summed over the labels, or over the supervised positions."""
        if self.classifies:
            return cross_entropy_sum(self.logits(batch), self.targets(batch), label_smoothing)
        return lm_loss(self.module, self._hidden(batch), batch.targets, label_smoothing=label_smoothing)

    def logits(self, batch: Packed) -> Tensor:
        """(S, L) one row for each text, or (N, V) at the supervised positions."""
        hidden = self._hidden(batch)
        if self.classifies:
            return class_logits(self.module, hidden, batch)
        return head(self.module, supervised(hidden, batch.targets)[0])

    def targets(self, batch: Packed) -> Tensor:
        """(S,) labels, or (N,) the tokens at the supervised positions."""
        return batch.extra["label"] if self.classifies else batch.targets[batch.targets != IGNORE]

    def logprobs(self, batch: Packed) -> Tensor:
        """(S,) log-probability of each text's label, or of its supervised tokens summed."""
        each = torch.log_softmax(self.logits(batch).float(), -1).gather(1, self.targets(batch)[:, None])[:, 0]
        if self.classifies:
            return each
        lengths = torch.tensor(batch.lengths, device=each.device)
        owners = torch.repeat_interleave(torch.arange(len(lengths), device=each.device), lengths)
        return each.new_zeros(len(lengths)).index_add(0, owners[batch.targets != IGNORE], each)

    # -- answering -----------------------------------------------------------------------------------------------------

    def generate(self, request: Request) -> Iterator[Part]:
        """The label, with `meta["probs"]` of all labels; or the text with each mask token filled in.

        Raises UsageError when there is no text, or no mask to fill in.
        """
        for _, answer in self.generate_many([request]):
            yield from answer.parts

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers for many texts, packed by length."""
        for request in requests:
            _refuse_decoding(request)
        texts = [_question(request.messages) for request in requests]
        items = []
        for text in texts:
            if not text:
                raise UsageError("There is no text to read.", "Put the text into the last user message.")
            tokens, cut = self._tokens(text)
            items.append(Encoded(({"tokens": tokens},), len(tokens), 1.0, cut))
        for rows in plan(items):
            with self.answering():
                answers = self._sort if self.classifies else self._fill
                for index, part in zip(rows, answers([items[i] for i in rows]), strict=True):
                    yield index, Message("assistant", (part,))

    def likelihood(self, examples: Sequence[Example]) -> Iterator[Likelihood]:
        """How likely each label is (one token each). Raises UsageError for a model that fills in masks."""
        if not self.classifies:
            raise UsageError("A masked language model gives no likelihood of an answer.", "Use a decoder.")
        items = [self.encode(example) for example in examples]
        found: dict[int, float] = {}
        for rows in plan(items):
            with self.answering():
                sums = self.logprobs(self.collate([items[i] for i in rows]).to(self.device)).tolist()
            found |= dict(zip(rows, sums, strict=True))
        for index, example in enumerate(examples):
            yield Likelihood(-found[index], 1, len(example.answer.text))

    def facts(self) -> dict[str, Any]:
        return super().facts() | ({"labels": list(self.labels)} if self.labels else {})

    def _sort(self, items: Sequence[Encoded]) -> Iterator[Part]:
        batch = self.collate(items).to(self.device)
        chances = torch.softmax(class_logits(self.module, self._hidden(batch), batch).float(), -1).tolist()
        for row, item in zip(chances, items, strict=True):
            best = max(range(len(row)), key=row.__getitem__)
            meta: dict[str, Any] = {"probs": dict(zip(self.labels, row, strict=True)), "finish_reason": "stop",
                                    "prompt_tokens": item.size, "completion_tokens": 1}  # fmt: skip
            yield Part(text=self.labels[best], meta=meta | ({"cut": item.cut} if item.cut else {}))

    def _fill(self, items: Sequence[Encoded]) -> Iterator[Part]:
        mask = self.tokenizer.mask_token_id
        for item in items:
            tokens = torch.as_tensor(item.sequences[0]["tokens"]).long()
            places = (tokens == mask).nonzero().squeeze(1)
            if not len(places):
                raise UsageError(
                    f"There is nothing to fill in: the text has no {self.tokenizer.mask_token}.",
                    f"E.g. 'The capital of France is {self.tokenizer.mask_token}.'",
                )
            hidden = self._hidden(self.collate([item]).to(self.device))
            logits = head(self.module, hidden.index_select(0, places.to(hidden.device))).float()
            logits[:, list(self._special)] = float("-inf")
            filled = tokens.clone()
            filled[places] = logits.argmax(1).cpu()
            guesses = [
                {self.tokenizer.decode([int(i)]).strip(): float(p) for p, i in zip(*row.topk(5), strict=True)}
                for row in torch.softmax(logits, 1)
            ]
            meta: dict[str, Any] = {"masks": guesses, "finish_reason": "stop", "prompt_tokens": item.size,
                                    "completion_tokens": len(places)}  # fmt: skip
            yield Part(text=self.tokenizer.decode(filled.tolist(), skip_special_tokens=True), meta=meta)

    def _tokens(self, text: str) -> tuple[np.ndarray, int]:
        """Tokens of one text with the frame the tokenizer puts around it, its end cut to `max_length`."""
        ids = token_ids(self.tokenizer, text)
        room = self.max_length - len(self._framed([]))
        return np.asarray(self._framed(ids[:room]), dtype=np.int32), max(0, len(ids) - room)

    def _framed(self, ids: list[int]) -> list[int]:
        t = self.tokenizer
        start = t.cls_token_id if t.cls_token_id is not None else t.bos_token_id
        end = t.sep_token_id if t.sep_token_id is not None else t.eos_token_id
        return [x for x in (start, *ids, end) if x is not None]


def class_logits(module: nn.Module, hidden: Tensor, batch: Packed) -> Tensor:
    """(S, L) of packed hidden states (T, d), by each architecture's own head.

    Raises ModelError for an architecture whose head is not known.
    """
    inner = bare(module)
    starts = torch.tensor(batch.starts, device=hidden.device)
    first = hidden.index_select(0, starts)
    core = inner.base_model
    if hasattr(inner, "pre_classifier"):  # DistilBERT
        return inner.classifier(inner.dropout(torch.relu(inner.pre_classifier(first))))
    if getattr(core, "pooler", None) is not None:  # BERT
        return inner.classifier(inner.dropout(core.pooler(first[:, None])))
    if hasattr(inner, "head") and hasattr(inner, "drop"):  # ModernBERT
        pooled = first if inner.config.classifier_pooling == "cls" else _means(hidden, batch)
        return inner.classifier(inner.drop(inner.head(pooled)))
    if hasattr(getattr(inner, "classifier", None), "out_proj"):  # RoBERTa, ELECTRA
        return inner.classifier(first[:, None])
    raise ModelError(
        f"The classification head of {type(inner).__name__} is not known.",
        "Use BERT, RoBERTa, DistilBERT or ModernBERT.",
    )


def _refuse_decoding(request: Request) -> None:
    for name in ("presence_penalty", "frequency_penalty", "logit_bias", "logprobs"):
        if getattr(request, name) != Request.model_fields[name].default:
            raise UsageError(f"This model sorts or fills in and decodes nothing, so it knows no `{name}`.",
                             "Leave it out, or use a model that writes.")  # fmt: skip


def _means(hidden: Tensor, batch: Packed) -> Tensor:
    return torch.stack([part.mean(0) for part in hidden.split(batch.lengths)])


def _last_linear(inner: Any) -> tuple[nn.Linear, Callable[[nn.Module], None]]:
    """The layer that gives the labels, and what puts another in its place."""
    owner, name = (inner.classifier, "out_proj") if hasattr(inner.classifier, "out_proj") else (inner, "classifier")
    layer = getattr(owner, name)
    return layer, lambda new: setattr(owner, name, new)


def _labels_of(config: Any) -> tuple[str, ...]:
    """The labels a folder brings, unless they are transformers' stand-ins (LABEL_0 …)."""
    found = tuple(str(config.id2label[number]) for number in sorted(config.id2label))
    return () if all(label == f"LABEL_{number}" for number, label in enumerate(found)) else found


def _question(messages: Sequence[Message]) -> str:
    """The text to read: the words of all messages before the answer."""
    return "\n".join(m.text for m in messages if m.text and m.role != "assistant") or "\n".join(
        m.text for m in messages if m.text
    )
