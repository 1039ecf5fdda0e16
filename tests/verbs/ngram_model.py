"""A small real model for tests of judging: it learns words after words, tells likelihoods, answers from what it saw."""

import math
from collections import Counter, defaultdict

from genwright.core import Likelihood, Message, Part

END = "</s>"


class NgramModel:
    """Add-k counts of the word after (last word of the question, word before); greedy decoding. `teach` tunes it."""

    def __init__(self, examples=(), *, k=0.1, vocabulary=2000):
        self.k, self.vocabulary, self.follow = k, vocabulary, defaultdict(Counter)
        self.teach(examples)

    def teach(self, examples):
        for example in examples:
            for state, word in self._steps(example):
                self.follow[state][word] += 1
        return self

    def _topic(self, prompt):
        words = prompt[-1].text.split() if prompt else []
        return words[-1].strip("?").lower() if words else ""

    def _steps(self, example):
        topic, before = self._topic(example.prompt), ""
        for word in [*example.answer.text.split(), END]:
            yield (topic, before), word
            before = word

    def generate(self, request):
        topic, at = self._topic(request.messages), ""
        for _ in range(request.max_new_tokens):
            seen = self.follow.get((topic, at))
            word = max(seen.items(), key=lambda kv: (kv[1], kv[0]))[0] if seen else END
            if word == END:
                return
            yield Part(text=f" {word}" if at else word)
            at = word

    def likelihood(self, examples):
        for example in examples:
            steps = [(self.follow.get(state, Counter()), word) for state, word in self._steps(example)]
            chances = [(seen[word] + self.k) / (seen.total() + self.k * self.vocabulary) for seen, word in steps]
            yield Likelihood(-sum(map(math.log, chances)), len(steps), len(example.answer.text))


class BatchedNgramModel(NgramModel):
    """The same, answering many at once, last first."""

    def generate_many(self, requests):
        for number in reversed(range(len(requests))):
            yield number, Message("assistant", (Part(text="".join(p.text for p in self.generate(requests[number]))),))
