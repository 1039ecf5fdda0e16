"""Training tokenizers: byte-level BPE, WordPiece and Unigram from texts, the same for the same texts on any day.

The trainers of the tokenizers library draw on hash maps whose order differs from process to process: harmless for
byte-level BPE, whose alphabet is fixed, but not for the others. WordPiece is therefore given its whole alphabet in
order beforehand, and Unigram is trained by SentencePiece on one thread.
"""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from genwright.core.errors import MissingExtra, UsageError
from genwright.nn.template import MARKED

ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
_BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
_OURS = {"pad_token": "<|pad|>", "unk_token": "<|unk|>", "bos_token": "<|start|>", "eos_token": "<|end|>",
         "mask_token": "<|mask|>"}  # fmt: skip
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


def train_tokenizer(kind: str, vocab_size: int, texts: Iterable[str], *, framed: bool = False) -> Any:
    """A new tokenizer from texts; the same texts give the same tokenizer.

    bpe: byte-level (Radford et al. 2019), so any text can be written; wordpiece: BERT's (cased); unigram: Kudo 2018
    with a byte fallback. `framed` puts the start and end tokens around every text, as encoders want. Each role of a
    chat has a token. Raises UsageError when `vocab_size` is too small for the alphabet or there are no texts.
    """
    from tokenizers import processors

    names = _BERT if kind == "wordpiece" else _OURS
    special = [*names.values(), *(["<|end|>"] if kind == "wordpiece" else []), *ROLE_TOKENS]
    least = len(special) + (1 if kind == "wordpiece" else 256) + 8
    if vocab_size < least:
        raise UsageError(f"A {kind} tokenizer needs a vocab_size of at least {least}.", "Raise tokenizer.vocab_size.")
    words = [text for text in texts if text]
    if not words:
        raise UsageError("There are no texts to train a tokenizer on.", "Give data, or name a tokenizer to load.")
    made = {"bpe": _bpe, "wordpiece": _wordpiece, "unigram": _unigram}[kind](vocab_size, words, special)
    start, end = (names.get("cls_token") or names["bos_token"]), (names.get("sep_token") or names["eos_token"])
    if framed or kind == "wordpiece":
        pairs = [(token, made.token_to_id(token)) for token in (start, end)]
        made.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {end}", pair=f"{start} $A {end} $B {end}", special_tokens=pairs
        )
    return _wrapped(made, {**names, "bos_token": start, "eos_token": "<|end|>", "cls_token": start, "sep_token": end})


def _bpe(vocab_size: int, texts: Sequence[str], special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer=trainer)
    return made


def _wordpiece(vocab_size: int, texts: Sequence[str], special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    first: set[str] = set()
    later: set[str] = set()
    for text in texts:
        for word, _ in made.pre_tokenizer.pre_tokenize_str(made.normalizer.normalize_str(text)):
            first.add(word[0])
            later.update(word[1:])
    alphabet = [*sorted(first), *(f"##{letter}" for letter in sorted(later))]
    if vocab_size < len(special) + len(alphabet):
        raise UsageError(
            f"The texts have {len(first | later)} different characters, too many for a vocab_size of {vocab_size}.",
            f"Raise tokenizer.vocab_size to {2 * (len(special) + len(alphabet))} or more, or train bpe.",
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=[*special, *alphabet], show_progress=False
    )
    made.train_from_iterator(texts, trainer=trainer)
    return _with_special(made, special)


def _unigram(vocab_size: int, texts: Sequence[str], special: list[str]) -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise MissingExtra("sentencepiece", "text") from None
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    lines = [line for text in texts for line in unicodedata.normalize("NFKC", text).splitlines() if line.strip()]
    proto = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=proto, model_type="unigram", num_threads=1, byte_fallback=True,
            vocab_size=vocab_size - len(special) + 1, hard_vocab_limit=False, normalization_rule_name="identity",
            remove_extra_whitespaces=False, max_sentence_length=1_000_000, minloglevel=2, unk_id=0, bos_id=-1,
            eos_id=-1, pad_id=-1,
        )  # fmt: skip
    except RuntimeError as error:
        why = " ".join(str(error).split())[-200:]
        raise UsageError(f"No unigram tokenizer can be trained: {why}", "Change tokenizer.vocab_size.") from None
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto.getvalue())
    found = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(1, pieces.get_piece_size())]
    vocabulary = [(token, 0.0) for token in special] + found
    made = Tokenizer(models.Unigram(vocabulary, unk_id=special.index("<|unk|>"), byte_fallback=True))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def _with_special(made: Any, special: Sequence[str]) -> Any:
    """The same tokenizer in which only `special` are special: an alphabet that was laid down first is words again."""
    from tokenizers import Tokenizer

    plain = json.loads(made.to_str())
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] in special]
    return Tokenizer.from_str(json.dumps(plain))


def _wrapped(made: Any, names: dict[str, str]) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, additional_special_tokens=list(ROLE_TOKENS), clean_up_tokenization_spaces=False, **names
    )
    tokenizer.chat_template = MARKED
    return tokenizer
