"""Models: find what a name means, fetch it by its card, check its hash, and open it with the engine that suits.

A model is named by a card (`smollm2-135m-instruct`), a run's folder, a folder in Hugging Face's layout, a `.gguf` file
or `hf:org/name@revision`. Weights are safetensors or GGUF. Each file is read whole for its sha256 when a process first
opens it (about 1.5 GB/s), and again when its size, time or inode changes. A card's file must have the card's hash, a
model folder's files those of its `SHA256SUMS` where it has one (`seal` writes it).
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genwright.core.card import Card, cards, find_card
from genwright.core.errors import GenwrightError, MissingExtra, ModelError, UsageError
from genwright.core.home import store
from genwright.core.model import Model
from genwright.core.plugin import Chosen, choose, did_you_mean, shelves
from genwright.core.recipe import ModelChoice
from genwright.core.run import Run, write_text
from genwright.core.things import SILENT, Tell
from genwright.trust.fetch import Accept, fetch, is_accepted, note_acceptance, sha256_of
from genwright.trust.weights import PICKLES, check_weights, weights_in

SUMS = "SHA256SUMS"
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "LICENSE*", "README.md"]


@dataclass(frozen=True)
class Located:
    """What a name means on this machine: `path` is what an engine loads (for a run, its `model` folder).

    `sha256` is that of the weights file, or of the list of several. `source` is what was asked for.
    """

    path: Path
    kind: Literal["run", "hf", "gguf", "files"]
    card: Card | None
    sha256: str
    source: str = ""


@dataclass(frozen=True)
class Known:
    """A card, and whether all its files are in the store."""

    card: Card
    is_here: bool


def pull(card: Card | str, *, accept: Accept = False, tell: Tell = SILENT, given: Path | None = None) -> Path:
    """Fetch a card's files; returns their folder in the store. What is there already is checked and kept. Cards that it
    needs are fetched after it.

    `accept` says yes to terms that must be accepted, or is asked with the card. `given` is a file brought by hand.
    Raises UsageError (no such card, terms not accepted) or ModelError (nothing answered, wrong hash, disk full …).
    """
    card = find_card(card) if isinstance(card, str) else card
    if not is_accepted(card):
        if not (accept(card) if callable(accept) else accept):
            raise UsageError(
                f"{card.title} comes under {card.licence}, which you must accept first: {card.licence_url}",
                f"Read it, then run `genwright models pull {card.name} --accept`.",
            )
        note_acceptance(card)
    if not card.is_here:
        tell.note(f"{card.title}: {card.licence}. {card.notice}".strip())
    folder = fetch(card, tell=tell, given=given)
    for name in card.needs:
        pull(name, accept=accept, tell=tell)
    return folder


def list_models() -> list[Known]:
    """All cards, models first, and whether their files are in the store."""
    known = [find_card(name) for name in cards()]
    return [Known(card, card.is_here) for card in sorted(known, key=lambda card: (card.kind != "model", card.name))]


def show(name: str) -> dict[str, Any]:
    """All that is known of a card, of a run or of any other model that is here."""
    if name in cards() or name.endswith((".yaml", ".yml")):
        card = find_card(name)
        return card.model_dump(mode="json") | {"here": card.is_here, "folder": str(card.folder), "bytes": card.size}
    found = locate(name, may_fetch=False)
    return {"name": name, "kind": found.kind, "path": str(found.path), "sha256": found.sha256} | _config(found.path)


def remove(name: str) -> int:
    """Remove a card's files from the store, and what was converted from them; returns the bytes freed."""
    card = find_card(name)
    made = [path for file in card.files for path in (store() / "converted").glob(f"{file.sha256}*")]
    freed = 0
    for place in (card.folder, *made):
        freed += sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        shutil.rmtree(place, ignore_errors=True)
    return freed


def locate(
    ref: str, *, may_fetch: bool = True, accept: Accept = False, tell: Tell = SILENT, exported: bool = False
) -> Located:
    """What `ref` means, with its weights checked. A card that is not here yet is fetched when `may_fetch`.

    `exported` takes a run's GGUF file, where it has one, as answering does.

    Raises UsageError when nothing has that name (did you mean …), ModelError when it is broken, altered or a pickle.
    """
    if exported:
        return _exported(locate(ref, may_fetch=may_fetch, accept=accept, tell=tell))
    path = Path(ref).expanduser()
    if ref.startswith("hf:"):
        return _folder(_from_hub(ref[3:], may_fetch, tell), ref)
    if ref in cards() or (ref.endswith((".yaml", ".yml")) and path.is_file()):
        return _card(find_card(ref), may_fetch, accept, tell)
    if path.is_dir():
        return _folder(path, ref)
    if path.is_file():
        check_weights(path)
        if path.suffix != ".gguf":
            raise ModelError(
                f"{path} holds weights without the words that belong to them.",
                "Name the folder that it lies in, with config.json and the tokenizer.",
            )
        return Located(path, "gguf", None, sha256_of(path), ref)
    if path.suffix in PICKLES or path.suffix in (".gguf", ".safetensors") or "/" in ref:
        raise UsageError(f"There is no model at {ref}.", "Name a card, a run, a folder, a .gguf file or hf:org/name.")
    names = [name for name in cards() if find_card(name).kind == "model"]
    raise UsageError(f"There is no model {ref!r}. {did_you_mean(ref, names)}", "See `genwright models list`.")


def open_model(
    choice: ModelChoice | str | Mapping[str, Any],
    *,
    task: Chosen | None = None,
    purpose: Literal["tune", "answer"] = "answer",
    seed: int = 0,
    texts: Sequence[str] | None = None,
    accept: Accept = False,
    tell: Tell = SILENT,
) -> Model:
    """Find the model and load it with the engine that suits the purpose.

    An engine named in the choice is used. Otherwise a run keeps its own; a card's engine does the tasks that the card
    says it can; else the folder's config.json or the task decides. To answer, a GGUF file goes to the `gguf` engine,
    and so does a run that was exported to GGUF after it was tuned; an engine with two forms of a model is told the
    purpose. `texts` are what a tokenizer is made from when the weights are random. Raises UsageError for wrong options,
    ModelError when loading fails.
    """
    choice = ModelChoice.model_validate(choice)
    found = locate(choice.source, accept=accept, tell=tell) if choice.source and not is_remote(choice) else None
    if found and purpose == "answer" and choice.engine is None:
        found = _exported(found)
    engine = choice.engine or _engine(found, task, purpose)
    options = choice.options if found or not choice.source else {"model": choice.source, **choice.options}
    chosen = _chosen(engine, options)
    takes = inspect.signature(chosen.thing).parameters
    given = {"texts": texts, "tell": tell, "purpose": purpose}
    more = {name: value for name, value in given.items() if name in takes}
    model: Model = chosen.thing(found.path if found else None, chosen.settings, seed=seed, **more)
    place = {"path": str(found.path), "sha256": found.sha256} if found else {"path": "", "sha256": ""}
    known = getattr(model, "base_reference", None) or {}  # what the engine knows better
    model.base_reference = {"source": choice.source or "", **place, **known}  # type: ignore[attr-defined]
    return model


def seal(folder: Path) -> dict[str, str]:
    """Write SHA256SUMS for the weights of a model folder, so that a flipped bit is noticed at the next loading."""
    sums = {path.relative_to(folder).as_posix(): sha256_of(path) for path in weights_in(folder)}
    write_text(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    return sums


def bring(names: Iterable[str], tell: Tell) -> None:
    """Fetch the cards that something works with, as data is fetched that a recipe names by its card. Why one cannot be
    had is told; who needs it says so itself."""
    for name in names:
        try:
            card = find_card(name)
            if not card.is_here:
                pull(card, tell=tell)
        except GenwrightError as error:
            tell.note(error.message)


# -- finding ---------------------------------------------------------------------------------------------------------


def _card(card: Card, may_fetch: bool, accept: Accept, tell: Tell) -> Located:
    if card.kind != "model":
        raise UsageError(f"{card.name} is a dataset, not a model.", f"Use it as `data: {card.name}`.")
    missing = [one for one in (card, *map(find_card, card.needs)) if not one.is_here]
    if missing:
        if not may_fetch:
            raise ModelError(f"{missing[0].title} has not been fetched.", f"Run `genwright models pull {card.name}`.")
        pull(card, accept=accept, tell=tell)
    for file in card.files:
        got = sha256_of(card.folder / file.name)
        if got != file.sha256:
            raise ModelError(
                f"{card.folder / file.name} has been altered: expected sha256 {file.sha256}, got {got}.",
                f"Run `genwright models pull {card.name}` to fetch it again.",
            )
    if card.format == "hf":
        weights_in(card.folder)
        return Located(card.folder, "hf", card, _together([f.sha256 for f in card.files]), card.name)
    if card.format == "files":  # what they are only the card's engine knows; their hashes are all that is asked
        return Located(card.folder, "files", card, _together([f.sha256 for f in card.files]), card.name)
    path = card.folder / card.files[0].name
    check_weights(path)
    return Located(path, "gguf", card, card.files[0].sha256, card.name)


def _folder(path: Path, ref: str) -> Located:
    """A run, a run's model folder, or a folder in Hugging Face's layout."""
    if Run.is_run(path):
        if not (path / "model").is_dir():
            raise ModelError(f"The run {path} has no model yet.", f"Tune it: `genwright run {path / 'recipe.yaml'}`.")
        path = path / "model"
    known = ("genwright.json", "config.json", "adapter_config.json")
    if not any((path / name).is_file() for name in known) and not _engine_by_file(path):
        ggufs = sorted(path.glob("*.gguf"))
        if len(ggufs) == 1:
            return locate(str(ggufs[0]))
        raise ModelError(f"{path} is neither a run nor a model folder.", "A model folder holds a config.json.")
    files = weights_in(path)
    sums = {file.relative_to(path).as_posix(): sha256_of(file) for file in files}
    if (path / SUMS).is_file():
        _compare(path, sums)
    kind: Literal["run", "hf"] = "run" if (path / "genwright.json").is_file() else "hf"
    return Located(path, kind, None, _together(list(sums.values())), ref)


def _compare(folder: Path, sums: dict[str, str]) -> None:
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if sums.get(name) != digest:
            got = sums.get(name, "no such file")
            raise ModelError(
                f"{folder / name} has been altered: expected sha256 {digest}, got {got}.",
                "Restore the file, or tune again; a checkpoint of the run may still be sound.",
            )


def _together(digests: list[str]) -> str:
    """The sha256 of one file, or that of the list of several."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _from_hub(place: str, may_fetch: bool, tell: Tell) -> Path:
    """The folder of `org/name@revision` in the hub's own cache; safetensors and words only, no code, no pickle."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingExtra("huggingface_hub", "text")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError

    name, _, revision = place.partition("@")
    more: dict[str, Any] = {"revision": revision or None, "allow_patterns": _HUB_FILES}
    try:
        return Path(snapshot_download(name, local_files_only=True, **more))
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise UsageError(f"hf:{place} is no name of a model: {error}", "Write hf:org/name@revision.") from None
    if not may_fetch:
        raise ModelError(f"hf:{place} is not on this machine.", "It is fetched when it is used with network access.")
    tell.note(f"Fetching {place} from the model hub.")
    try:
        return Path(snapshot_download(name, **more))
    except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise ModelError(
            f"hf:{place} could not be fetched from the model hub: {' '.join(str(error).split())[:200]}",
            "Check the name and the network; or fetch the folder elsewhere and name its path.",
        ) from None


# -- choosing the engine ---------------------------------------------------------------------------------------------


def is_remote(choice: ModelChoice) -> bool:
    """The source is a name that only the engine understands (a model of an upstream), not something on this machine."""
    return choice.engine is not None and bool(getattr(shelves["engines"].load(choice.engine), "remote", False))


def _engine(found: Located | None, task: Chosen | None, purpose: str) -> str:
    wanted: str = task.thing.engine if task else ""
    if found is None:
        return wanted or "causal_lm"
    if purpose == "answer" and found.kind == "gguf":
        return "gguf"
    if found.kind == "run":
        return str(_config(found.path).get("engine") or wanted or "causal_lm")
    if found.card and found.card.engine and (task is None or task.name in found.card.abilities):
        return found.card.engine
    return _engine_by_file(found.path) or wanted or _engine_of_config(found)


def _engine_by_file(folder: Path) -> str:
    """The engine that knows its models by a file (`known_by`) which lies in this folder, or by the model_type of its
    config.json (`known_types`); empty when none does."""
    engines = {name: shelves["engines"].load(name) for name in shelves["engines"]}
    marks = {name: getattr(engine, "known_by", None) for name, engine in engines.items()}
    if by_file := next((name for name, mark in marks.items() if mark and (folder / mark).is_file()), ""):
        return by_file
    kind = _config(folder).get("model_type")
    return next((name for name, engine in engines.items() if kind and kind in getattr(engine, "known_types", ())), "")


def _engine_of_config(found: Located) -> str:
    config = _config(found.path)
    names = " ".join(config.get("architectures") or [])
    if config.get("is_encoder_decoder"):
        return "seq2seq"
    return "encoder" if "MaskedLM" in names or "Classification" in names else "causal_lm"


def _exported(found: Located) -> Located:
    """The GGUF export of a run in place of its model folder, when there is one that is newer than the model."""
    made = found.path / "genwright.json"
    if found.kind != "run" or not made.is_file():
        return found
    exports = [
        path
        for path in sorted((found.path.parent / "exports" / "gguf").glob("*.gguf"))
        if path.stat().st_mtime_ns >= made.stat().st_mtime_ns and not path.name.endswith("-lora.gguf")
    ]
    if not exports:
        return found
    best = max(exports, key=lambda path: ("q8_0" in path.name.lower(), path.stat().st_mtime_ns))
    check_weights(best)
    return Located(best, "gguf", None, sha256_of(best), found.source)


def _chosen(engine: str, options: dict[str, Any]) -> Chosen:
    try:
        return choose("engines", {"name": engine, **options})
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"The options of the engine {engine!r} are not right: {error}") from None


def _config(path: Path) -> dict[str, Any]:
    for name in ("genwright.json", "config.json"):
        file = path / name if path.is_dir() else path.parent / name
        if path.is_dir() and file.is_file():
            try:
                found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ModelError(f"{file} is not JSON: {error}", "Restore the file.") from None
            if not isinstance(found, dict):
                raise ModelError(f"{file} is no mapping of keys to values.", "Restore the file.")
            return found
    return {}
