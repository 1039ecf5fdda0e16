"""Decoder: a causal language model that learns from conversations and answers them.

What is learned is a target at each supervised position; the head of the model is applied to those positions only. Rows
are packed end to end, so no padding passes through a linear layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from genwright.core.content import Message, Part, assistant
from genwright.core.data import Example
from genwright.core.errors import ModelError, UsageError
from genwright.core.model import Encoded, Likelihood, Request, Unlearnable
from genwright.nn import sampling
from genwright.nn.attention import head, lm_loss
from genwright.nn.lm import plan, sums_by_segment, supervised
from genwright.nn.logprobs import bytes_of, figure
from genwright.nn.packing import Packed, pack
from genwright.nn.pretrained import Pretrained
from genwright.nn.text import Tokens, chat_tokens, encoded, end_tokens, plain_tokens, prompt_tokens, windows

_ROWS = 256  # positions whose logits are there at once


class Decoder(Pretrained):
    """A learner of causal language modelling: Batched, Scorer and Learner of the floor's contracts."""

    engine = "causal_lm"

    def __init__(self, module: Any, tokenizer: Any, settings: Any):
        super().__init__(module, tokenizer, settings)
        self.ends = end_tokens(tokenizer, getattr(module, "generation_config", None))

    # -- learning ------------------------------------------------------------------------------------------------------

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """A conversation through the model's template; a single assistant message is plain text, in as many windows
        of `max_length` as it takes.

        Raises Unlearnable with the reason when nothing is left to learn.
        """
        if odd := [part.kind for message in example.messages for part in message.parts if part.kind != "text"]:
            raise Unlearnable(f"it holds a part of kind {odd[0]}, which a text model cannot read")
        if len(example.messages) == 1 and example.answer.role == "assistant":
            ids = plain_tokens(self.tokenizer, example.answer.text)
            return encoded([Tokens(w, [True] * len(w)) for w in windows(ids, self.max_length)])
        try:
            tokens = chat_tokens(self.tokenizer, example.messages, supervise=supervise, max_length=self.max_length + 1)
        except ModelError as error:  # the template objects to this conversation
            raise Unlearnable(error.message) from None
        return encoded([tokens])

    def collate(self, items: Sequence[Encoded]) -> Packed:
        """All sequences of the items in one row, end to end."""
        return pack(sequence for item in items for sequence in item.sequences)

    def loss(self, batch: Packed, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy summed over the supervised targets."""
        return lm_loss(self.module, self._hidden(batch), batch.targets, label_smoothing=label_smoothing)

    def logits(self, batch: Packed) -> Tensor:
        """(N, V) at the N supervised positions."""
        return head(self.module, supervised(self._hidden(batch), batch.targets)[0])

    def targets(self, batch: Packed) -> Tensor:
        """(N,) what the supervised positions should predict."""
        return batch.targets[batch.targets != -100]

    def logprobs(self, batch: Packed) -> Tensor:
        """(S,) log-probability of each sequence's supervised tokens, summed."""
        return sums_by_segment(self.module, self._hidden(batch), batch)

    # -- answering -----------------------------------------------------------------------------------------------------

    def generate(self, request: Request) -> Iterator[Part]:
        """Stream an answer: text deltas, then an empty part whose `meta` has `finish_reason`, `prompt_tokens`,
        `completion_tokens`, `logprob` (nats, of all that was drawn) and, where the prompt was too long, `cut`.

        A request whose last message is the assistant's is gone on with. Raises UsageError for a constraint that
        cannot be enforced, or a conversation without a message.
        """
        with self.answering():
            for _, part in self._decode([request]):
                yield part

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers as they are ready, decoded together; greedy answers are those of `generate`."""
        prompts = [self._prompt(request) for request in requests]
        for rows in sampling.batches([len(p.ids) for p in prompts], [r.max_new_tokens for r in requests]):
            with self.answering():
                chosen = [requests[i] for i in rows]
                for place, answer in sampling.answers(self._decode(chosen, [prompts[i] for i in rows]), len(rows)):
                    yield rows[place], answer

    def likelihood(self, examples: Sequence[Example]) -> Iterator[Likelihood]:
        """What the model makes of each reference answer, packed; logits exist for a few rows at a time only.

        Raises UsageError for an example without an answer.
        """
        items = []
        for number, example in enumerate(examples):
            try:
                items.append(self.encode(example))
            except Unlearnable as error:
                raise UsageError(f"Example {number} has no likelihood: {error}.", "Leave it out.") from None
        found: dict[int, Likelihood] = {}
        for rows in plan(items):
            with self.answering():
                sums = self.logprobs(self.collate([items[i] for i in rows]).to(self.device)).tolist()
            for index in rows:
                mine, sums = sums[: len(items[index].sequences)], sums[len(items[index].sequences) :]
                found[index] = Likelihood(-sum(mine), int(items[index].weight), len(examples[index].answer.text))
        yield from (found[i] for i in range(len(items)))

    def token_scores(self, text: str, top: int = 0) -> list[dict[str, Any]]:
        """What the model makes of each token of a plain text, in the shape of nn/logprobs; the first has no `logprob`,
        for nothing stands before it. Raises UsageError for a text longer than the model reads."""
        ids = prompt_tokens(self.tokenizer, [assistant(text)]).ids
        if len(ids) > self.context:
            raise UsageError(f"The text has {len(ids)} tokens; the model reads {self.context}.", "Shorten it.")
        lead = 1 if ids[:1] == [self.tokenizer.bos_token_id] else 0  # what the tokenizer puts before every text
        if not ids[lead:]:
            return []
        said = bytes_of(self.tokenizer, ids[lead])
        found = [{"token": said.decode("utf-8", "replace"), "bytes": list(said), "logprob": None, "top": []}]
        if len(ids) < lead + 2:
            return found
        sequence = encoded([Tokens(ids, [True] * len(ids))])
        with self.answering():
            rows = self._hidden(self.collate([sequence]).to(self.device))[lead:]
            for begin in range(0, len(rows), _ROWS):
                chances = torch.log_softmax(head(self.module, rows[begin : begin + _ROWS]).float(), -1)
                wanted = ids[lead + 1 + begin :]
                found += [figure(self.tokenizer, row, token, top) for row, token in zip(chances, wanted, strict=False)]
        return found

    def _prompt(self, request: Request) -> Tokens:
        if not request.messages:
            raise UsageError("There is nothing to answer: the request has no message.")
        return prompt_tokens(self.tokenizer, request.messages, room=max(1, self.context - 1))

    def _decode(
        self, requests: Sequence[Request], prompts: Sequence[Tokens] | None = None
    ) -> Iterator[tuple[int, Part]]:
        prompts = [self._prompt(request) for request in requests] if prompts is None else prompts
        ids = [p.ids or [self._first()] for p in prompts]
        rows = sampling.prepare(
            requests, ids, tokenizer=self.tokenizer, ends=self.ends,
            vocabulary=self.module.config.get_text_config().vocab_size, room=self.context,
            plain=[r.messages[-1].role == "assistant" for r in requests],
            facts=[{"cut": p.cut} if p.cut else {} for p in prompts],
        )  # fmt: skip
        yield from sampling.decode(sampling.CausalSteps(self.module, ids), rows, self.tokenizer, self.ends)

    def _first(self) -> int:
        """What an empty text begins with."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0
