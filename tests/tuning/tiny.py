"""A tiny random text learner on real parts (transformers, packed attention), for tests of what is tuned and how."""

from contextlib import contextmanager

import numpy as np
import torch

from genwright.core import Encoded, Example, Unlearnable, assistant, user
from genwright.nn.attention import head, lm_loss, packed_hidden, use_packed_attention
from genwright.nn.packing import IGNORE, causal_targets, pack

WORDS = "the a cat dog bird fish red blue green sat ran flew on under mat tree sky big small and".split()  # noqa: SIM905
SIZE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["<pad>", "<eos>", "<unk>", "<mask>", *WORDS])}, "<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", mask_token="<mask>"
    )


def rows(count=8, seed=0):
    """Examples with prompts and answers of varied length."""
    rng = np.random.default_rng(seed)
    say = lambda low, high: " ".join(rng.choice(WORDS, rng.integers(low, high)))  # noqa: E731
    return [Example((user(say(2, 6)), assistant(say(1, 5)))) for _ in range(count)]


def llama(seed=0, **more):
    import transformers as tf

    torch.manual_seed(seed)
    config = tf.LlamaConfig(**(SIZE | dict(vocab_size=len(WORDS) + 4, head_dim=8, initializer_range=0.2) | more))
    return tf.LlamaForCausalLM(config)


class TinyLearner:
    """The contract of a text learner, with nothing more."""

    method = ""

    def __init__(self, module=None, tokens=None):
        self.module, self.tokenizer = llama() if module is None else module, tokens or tokenizer()
        self.module.eval()
        use_packed_attention(self.module)
        self.base_reference = {}
        self.start = {k: v.clone() for k, v in self.module.state_dict().items()}

    def encode(self, example, *, supervise="answer"):
        parts = []
        for number, message in enumerate(example.messages):
            ids = [*self.tokenizer(message.text)["input_ids"], self.tokenizer.eos_token_id]
            taught = supervise == "all" or (
                message.role == "assistant" and (supervise == "assistant" or number == len(example.messages) - 1)
            )
            parts += [(i, taught) for i in ids]
        ids, taught = zip(*parts, strict=True)
        targets = causal_targets(ids, taught)
        if not (targets != IGNORE).any():
            raise Unlearnable("nothing to learn")
        fields = {"tokens": np.array(ids, dtype=np.int32), "targets": targets.astype(np.int32)}
        return Encoded((fields,), len(ids), float((targets != IGNORE).sum()))

    def collate(self, items):
        return pack([sequence for item in items for sequence in item.sequences])

    def hidden(self, batch):
        return packed_hidden(self.module, batch)

    def loss(self, batch, *, label_smoothing=0.0):
        return lm_loss(self.module, self.hidden(batch), batch.targets, label_smoothing=label_smoothing)

    def logits(self, batch):
        return head(self.module, self.hidden(batch)[batch.targets != IGNORE])

    def targets(self, batch):
        return batch.targets[batch.targets != IGNORE]

    def logprobs(self, batch):
        keep = batch.targets != IGNORE
        owners = torch.repeat_interleave(torch.arange(len(batch.lengths)), torch.tensor(batch.lengths))[keep]
        each = torch.log_softmax(self.logits(batch), -1).gather(1, self.targets(batch)[:, None])[:, 0]
        return torch.zeros(len(batch.lengths)).index_add(0, owners, each)

    def embeddings(self):
        return (
            self.module.get_base_model() if self.method not in ("", "full", "freeze") else self.module
        ).get_input_embeddings()

    @contextmanager
    def untuned(self):
        if hasattr(self.module, "disable_adapter"):
            with self.module.disable_adapter():
                yield
            return
        now = {name: p.data for name, p in self.module.named_parameters()}
        for name, p in self.module.named_parameters():
            p.data = self.start[name]
        yield
        for name, p in self.module.named_parameters():
            p.data = now[name]


def batch_of(learner, examples=None, supervise="answer"):
    return learner.collate([learner.encode(e, supervise=supervise) for e in examples or rows()])


def teach(learner, steps=20, rate=0.02, examples=None):
    """A few plain steps; the mean loss before and after."""
    batch = batch_of(learner, examples)
    parameters = [p for p in learner.module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    losses = []
    for _ in range(steps):
        loss = learner.loss(batch) / len(learner.targets(batch))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[0], losses[-1]


def engine_learner(engine="causal_lm", seed=0, **config):
    """A real engine's learner with random weights and a tokenizer made from a few texts."""
    from genwright.core import shelves

    module = shelves["engines"].load(engine)
    size = dict(SIZE, model_type="llama", head_dim=8, initializer_range=0.2, max_position_embeddings=128)
    options = {"config": config or size, "tokenizer": {"train": "bpe", "vocab_size": 300}}
    return module.load(None, module.Settings.model_validate(options), seed=seed, texts=[" ".join(WORDS)] * 3)
