"""Sampling: how an answer is drawn token by token, with a key-value cache, alone or many at once.

One loop for every kind of text model: it asks `Steps` for the next logits and knows nothing else of the model. Each row
has its own settings, random numbers, constraints and text, so a row says the same alone and in a batch. Text leaves as
deltas that never split a character nor show the beginning of a stop string.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache as cache_once
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from genwright.core.content import Message, Part
from genwright.core.errors import UsageError
from genwright.core.model import Request
from genwright.nn.attention import bare, head, learned_prompt
from genwright.nn.constrain import Constrained, constrained
from genwright.nn.logprobs import begun_within, figure

ROWS = 16  # rows that are decoded together
SLOTS = 32_768  # tokens, padding counted, whose keys and values are kept at once
_UNFINISHED = "\ufffd"  # what a tokenizer shows for half a character


class Steps(Protocol):
    """A model that has read its prompts: the logits of what comes next, row by row."""

    def start(self) -> Tensor:
        """Logits (B, V) after the prompts."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) after one more token a row, (B,)."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        ...


@dataclass
class Row:
    """One answer under way."""

    request: Request
    prompt: list[int]
    budget: int  # tokens it may still take: of the request, or what the model's length leaves
    constraint: Constrained | None = None
    context: int = 0  # tokens of the prompt that the text is read behind (0: the answer is a text of its own)
    facts: dict[str, Any] = field(default_factory=dict)  # for the last part's meta
    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    figures: list[dict[str, Any]] = field(default_factory=list)  # of tokens whose text has not left yet
    told: int = 0  # tokens that have their figures

    def __post_init__(self) -> None:
        self.random = torch.Generator()
        if self.request.seed is None:
            self.random.seed()
        else:
            self.random.manual_seed(self.request.seed)


@torch.no_grad()
def decode(steps: Steps, rows: Sequence[Row], tokenizer: Any, ends: Collection[int]) -> Iterator[tuple[int, Part]]:
    """Draw all rows together; yields (row, text delta) as they come. The last part of a row is empty and says in `meta`
    why it ended ("stop" or "length"), its tokens, and the log-probability of what was drawn. Where the request wants
    `logprobs`, a delta's meta has those of its tokens."""
    open_rows = list(range(len(rows)))
    texts = [Text(tokenizer, row.prompt[len(row.prompt) - row.context :], row.request.stop) for row in rows]
    logits = steps.start()
    while open_rows:
        tokens = _choose(logits, [rows[i] for i in open_rows], [texts[i] for i in open_rows], ends)
        going, kept = [], []
        for place, (index, token) in enumerate(zip(open_rows, tokens, strict=True)):
            row, text = rows[index], texts[index]
            why, delta = _take(row, text, token, ends)
            meta = _figures(row, text, token, logits[place], delta)
            if delta:
                yield index, Part(text=delta, meta=meta)
            if why:
                yield index, Part(meta=_facts(row, why))
            else:
                going.append(index)
                kept.append((place, token))
        if len(going) < len(open_rows) and going:
            steps.keep([place for place, _ in kept])
        open_rows = going
        if open_rows:
            logits = steps.step(torch.tensor([token for _, token in kept], device=logits.device))


def answers(parts: Iterator[tuple[int, Part]], count: int) -> Iterator[tuple[int, Message]]:
    """Whole answers out of the deltas of many rows, as they are ready."""
    words: list[list[str]] = [[] for _ in range(count)]
    figures: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for index, part in parts:
        words[index].append(part.text)
        meta = part.meta or {}
        figures[index] += meta.get("logprobs", ())
        if "finish_reason" in meta:
            meta = meta | ({"logprobs": figures[index]} if figures[index] else {})
            yield index, Message("assistant", (Part(text="".join(words[index]), meta=meta),))


def batches(lengths: Sequence[int], budgets: Sequence[int]) -> list[list[int]]:
    """Rows that are decoded together: neighbours in length, at most `ROWS`, and within `SLOTS`."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    made: list[list[int]] = []
    longest = 0
    for index in order:
        size = lengths[index] + budgets[index]
        if not made or len(made[-1]) >= ROWS or max(longest, size) * (len(made[-1]) + 1) > SLOTS:
            made.append([])
            longest = 0
        made[-1].append(index)
        longest = max(longest, size)
    return made


class Text:
    """Tokens on their way to words: `add` gives what may be shown, `rest` what was held back, `whole` all of it."""

    def __init__(self, tokenizer: Any, context: Sequence[int], stop: Sequence[str]):
        self.tokenizer, self.stop = tokenizer, tuple(s for s in stop if s)
        self.ids, self.read, self.shown = list(context), len(context), 0
        self.start = 0
        self.whole = ""
        self.stopped = False

    def look(self, token: int) -> str:
        """The whole text if `token` came next."""
        return self.whole + self._new([*self.ids[self.start :], token])

    def add(self, token: int) -> str:
        self.ids.append(token)
        new = self._new(self.ids[self.start :])
        if new.endswith(_UNFINISHED):
            return ""
        self.whole += new
        if new:
            self.start, self.read = self.read, len(self.ids)
        self._stop()
        return self._show(0 if self.stopped else self._held())

    def rest(self) -> str:
        """What is left when the row is over: half a character too, as the tokenizer shows it."""
        if not self.stopped:
            self.whole += self._new(self.ids[self.start :])
            self.start = self.read = len(self.ids)
            self._stop()
        return self._show(0)

    def _stop(self) -> None:
        """Cut the text where the first stop string begins."""
        places = [place for stop in self.stop if (place := self.whole.find(stop, max(0, self.shown - len(stop)))) >= 0]
        if places:
            self.whole, self.stopped = self.whole[: min(places)], True

    def _new(self, ids: list[int]) -> str:
        """What the ids from `start` say beyond those that were read."""
        before = self._words(ids[: self.read - self.start])
        after = self._words(ids)
        return after[len(before) :]

    def _words(self, ids: list[int]) -> str:
        words: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return words

    def _held(self) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        most = max((len(stop) for stop in self.stop), default=0)
        return max((n for n in range(1, most) if any(s.startswith(self.whole[-n:]) for s in self.stop)), default=0)

    def _show(self, held: int) -> str:
        end = max(self.shown, len(self.whole) - held)
        delta, self.shown = self.whole[self.shown : end], end
        return delta


class CausalSteps:
    """A decoder that has read its prompts, padded on the left, and keeps their keys and values.

    What a prompt-learning adapter (prefix, prompt, P-tuning) puts in front is put in front of every row.
    """

    def __init__(self, model: nn.Module, prompts: Sequence[Sequence[int]]):
        self.inner, self.prompts = bare(model), [list(p) for p in prompts]
        self.core = self.inner.base_model
        self.takes = set(inspect.signature(self.core.forward).parameters)
        self.device = self.inner.get_input_embeddings().weight.device
        self.virtual, self.prefix = learned_prompt(model)
        self.ahead = (
            len(self.virtual) if self.virtual is not None else self.prefix[0][0].shape[-2] if self.prefix else 0
        )
        self.cache: Any = None

    def start(self) -> Tensor:
        count, longest = len(self.prompts), max(len(p) for p in self.prompts)
        self.cache = _cache(self.inner.config)
        if self.prefix:
            for layer, (keys, values) in zip(self.cache.layers, self.prefix, strict=True):
                layer.update(*(x.expand(count, -1, -1, -1) for x in (keys, values)))
        tokens = torch.tensor([[0] * (longest - len(p)) + p for p in self.prompts], device=self.device)
        seen = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in self.prompts], device=self.device)
        self.mask = torch.cat([seen.new_ones(count, self.ahead), seen], 1)
        self.padded = not bool(self.mask.all())
        self.lengths = seen.sum(1) + self.ahead
        positions = (seen.cumsum(1) - 1).clamp(min=0) + self.ahead
        if self.virtual is None:
            return self._forward({"input_ids": tokens}, positions)
        embeds = self.inner.get_input_embeddings()(tokens)
        lead = self.virtual.to(embeds.dtype).expand(count, -1, -1)
        steps = torch.arange(self.ahead, device=self.device).expand(count, -1)
        return self._forward({"inputs_embeds": torch.cat([lead, embeds], 1)}, torch.cat([steps, positions], 1))

    def step(self, tokens: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        positions = self.lengths[:, None]
        self.lengths = self.lengths + 1
        return self._forward({"input_ids": tokens[:, None]}, positions)

    def keep(self, rows: Sequence[int]) -> None:
        chosen = torch.tensor(rows, device=self.device)
        self.cache.batch_select_indices(chosen)
        self.mask, self.lengths = self.mask[chosen], self.lengths[chosen]
        self.padded = not bool(self.mask.all())

    def _forward(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        more = {"position_ids": positions} if "position_ids" in self.takes else {}
        out = self.core(**inputs, **more, past_key_values=self.cache, use_cache=True,
                        attention_mask=self.mask if self.padded else None)  # fmt: skip
        return head(self.inner, out.last_hidden_state[:, -1]).float()


def _cache(config: Any) -> Any:
    """transformers' cache with layers that double their room instead of copying everything at each token."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache(config=config)
    if not cache.layers or getattr(cache, "layer_class_to_replicate", None) is not None:
        return cache
    cache.layers = [_growing_layer()() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


@cache_once
def _growing_layer() -> Any:
    from transformers.cache_utils import DynamicLayer

    class Growing(DynamicLayer):
        """Keys and values (B, H, T, D) as views into buffers with room for more."""

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            old = self.get_seq_length()
            new = old + key_states.shape[-2]
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            if not old or new > self.room[0].shape[-2]:
                self.room: list[Any] = [self._larger(x, old, new, kept) for x, kept in
                             ((key_states, self.keys), (value_states, self.values))]  # fmt: skip
            for buffer, states in zip(self.room, (key_states, value_states), strict=True):
                buffer[:, :, old:new] = states
            self.keys, self.values = (buffer[:, :, :new] for buffer in self.room)
            return self.keys, self.values

        def batch_select_indices(self, indices: Tensor) -> None:
            super().batch_select_indices(indices)
            self.room = [self.keys, self.values]

        @staticmethod
        def _larger(states: Tensor, old: int, new: int, kept: Any) -> Tensor:
            buffer = states.new_empty(*states.shape[:2], max(64, 2 * new if old else new + 64), states.shape[3])
            if old:
                buffer[:, :, :old] = kept
            return buffer

    return Growing


def _choose(logits: Tensor, rows: Sequence[Row], texts: Sequence[Text], ends: Collection[int]) -> list[int]:
    """One token a row."""
    if all(_is_plain(row) for row in rows):
        tokens = logits.argmax(1)
        surprise = torch.logsumexp(logits, 1) - logits.gather(1, tokens[:, None])[:, 0]
        for row, nats in zip(rows, surprise.tolist(), strict=True):
            row.logprob -= nats
        return [int(token) for token in tokens]
    return [_choose_one(logits[place], row, texts[place], ends) for place, row in enumerate(rows)]


def _choose_one(logits: Tensor, row: Row, text: Text, ends: Collection[int]) -> int:
    request, rule = row.request, row.constraint
    raw = logits.float().cpu()
    logits = _penalised(raw.clone(), row)
    if rule is not None:
        logits = rule.mask(logits, text.whole)
    token = draw(logits, request, row.random)
    while rule is not None and rule.banned and token not in ends and not rule.allows(text.look(token)):
        logits = logits.clone()
        logits[token] = float("-inf")
        rule.tries -= 1
        if not torch.isfinite(logits).any():
            token = min(ends, default=token)
            break
        token = draw(logits, request, row.random)
    row.logprob += float(raw[token] - torch.logsumexp(raw, 0))
    return token


def _is_plain(row: Row) -> bool:
    asked = row.request
    changed = asked.temperature or asked.presence_penalty or asked.frequency_penalty or asked.logit_bias
    return row.constraint is None and not changed and asked.repetition_penalty == 1


def _penalised(logits: Tensor, row: Row) -> Tensor:
    """Logits (V,) after biases, the repetition penalty (over prompt and answer, arXiv 1909.05858) and OpenAI's presence
    and frequency penalties (over the answer), in llama.cpp's order."""
    request = row.request
    if request.logit_bias:
        logits[list(request.logit_bias)] += torch.tensor(list(request.logit_bias.values()))
    if request.repetition_penalty != 1:
        said = torch.tensor(sorted({*row.prompt, *row.ids}))
        old = logits[said]
        logits[said] = torch.where(old > 0, old / request.repetition_penalty, old * request.repetition_penalty)
    if row.ids and (request.presence_penalty or request.frequency_penalty):
        counts = Counter(row.ids)
        often = torch.tensor(list(counts.values()), dtype=torch.float32)
        logits[list(counts)] -= request.presence_penalty + request.frequency_penalty * often
    return logits


def _figures(row: Row, text: Text, token: int, logits: Tensor, delta: str) -> dict[str, Any] | None:
    """The meta of a delta: the log-probabilities of its tokens, where they are wanted; others wait for their text."""
    if row.request.logprobs is None:
        return None
    if len(row.ids) > row.told:
        row.told = len(row.ids)
        row.figures.append(figure(text.tokenizer, torch.log_softmax(logits.float(), 0), token, row.request.logprobs))
    if not delta:
        return None
    figures, row.figures = row.figures, []
    return {"logprobs": begun_within(figures, delta) if text.stopped else figures}


def draw(logits: Tensor, request: Request, random: torch.Generator) -> int:
    """A token from logits (V,): greedy at temperature 0, else within top-k and the top-p nucleus (arXiv 1904.09751)."""
    if not request.temperature:
        return int(logits.argmax())
    logits = logits / request.temperature
    if 0 < request.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(request.top_k).values[-1], float("-inf"))
    chances = torch.softmax(logits, 0)
    if request.top_p < 1:
        ordered, order = chances.sort(descending=True, stable=True)
        outside = ordered.cumsum(0) - ordered >= request.top_p
        chances = chances.index_fill(0, order[outside], 0.0)
    return int(torch.multinomial(chances, 1, generator=random))


def _take(row: Row, text: Text, token: int, ends: Collection[int]) -> tuple[str, str]:
    """Put a token to a row: (why it is over, or nothing; what may be shown)."""
    rule = row.constraint
    if token in ends:
        return "stop", text.rest()
    if rule is not None and rule.has_too_many_words(text.look(token)):
        return "stop", text.rest()
    row.ids.append(token)
    delta = text.add(token)
    if rule is not None:
        rule.accept(token)
    if text.stopped or (rule is not None and rule.is_over):
        return "stop", delta + text.rest()
    if len(row.ids) >= row.budget:
        return "length", delta + text.rest()
    return "", delta


def _facts(row: Row, why: str) -> dict[str, Any]:
    return {"finish_reason": why, "prompt_tokens": len(row.prompt), "completion_tokens": len(row.ids),
            "logprob": row.logprob, **row.facts}  # fmt: skip


def prepare(
    requests: Sequence[Request], prompts: Sequence[list[int]], *, tokenizer: Any, ends: Collection[int],
    vocabulary: int, room: int, plain: Sequence[bool], facts: Sequence[dict[str, Any]],
) -> list[Row]:  # fmt: skip
    """Rows for `decode`. `room` is the model's length; `plain` rows are read behind the text they go on with.

    Raises UsageError for a bias of a token that there is not, or for a constraint that cannot be enforced.
    """
    if odd := [token for request in requests for token in request.logit_bias if not 0 <= token < vocabulary]:
        raise UsageError(f"There is no token {odd[0]}: the vocabulary ends at {vocabulary - 1}.",
                         "Correct `logit_bias`.")  # fmt: skip
    return [
        Row(
            request, prompt, max(1, min(request.max_new_tokens, room - len(prompt))),
            constrained(request.constraints, tokenizer, ends, vocabulary), min(len(prompt), 8) if begun else 0, note,
        )
        for request, prompt, begun, note in zip(requests, prompts, plain, facts, strict=True)
    ]  # fmt: skip
