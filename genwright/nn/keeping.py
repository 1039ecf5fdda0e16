"""Keeping: what every small model of ours shares whose shape is a config and whose weights are one file.

A kind says its `engine`, and makes `config` and `module`. Where more than the module's own weights must be kept, it
says so by `facts`; a folder is opened by `open_kept`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from genwright.core.errors import ModelError, UsageError

from .checkpoint import write_safetensors
from .weights import check_model_folder, load_into

WEIGHTS = "model.safetensors"


class Keeping:
    """The part of a Learner that keeps its network: saved, untuned, asked without gradients."""

    engine = ""
    config: Any
    module: Any
    _kept: Any = None

    def __init__(self) -> None:
        self.base_reference: dict[str, str] = {}
        self.method, self.notes = "", list[str]()

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @contextmanager
    def answering(self) -> Iterator[Any]:
        """The network to ask, without gradients."""
        learning = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                yield self.to_ask()
        finally:
            self.module.train(learning)

    def to_ask(self) -> Any:
        """What `answering` gives: the module, unless a kind has a better one for it."""
        return self.module

    def keep_base(self) -> None:
        """Keep a frozen copy of the network as it is now, for `untuned`; the first copy stays."""
        self._kept = self._kept or copy.deepcopy(self.module).requires_grad_(False).eval()

    @contextmanager
    def untuned(self) -> Iterator[None]:
        """Within it the network is as `keep_base` found it. Raises ModelError when there is no copy."""
        if self._kept is None:
            raise ModelError("There is no copy of the model before tuning.", "Call keep_base() before the first step.")
        tuned, self.module = self.module, self._kept.to(self.device)
        try:
            yield
        finally:
            self.module = tuned

    def facts(self) -> dict[str, Any]:
        """What config.json says beside the shape, for `opened_with`."""
        return {}

    def players(self) -> dict[str, str]:
        """Parts of the module by the file that keeps them, if not all of it lies in one; the first is what answers,
        the others are needed only to learn on, and exports leave them out."""
        return {}

    def save(self, folder: Path) -> None:
        """Weights in float32, config.json and genwright.json, into an existing or new folder. What an adapter has
        learned is in the weights."""
        folder.mkdir(parents=True, exist_ok=True)
        module, players = merged(self.module), self.players()
        for file, part in (players or {WEIGHTS: ""}).items():
            write_safetensors(folder / file, module.get_submodule(part).state_dict())
        shape = {"model_type": self.engine, **self.config.model_dump(mode="json"), **self.facts()}
        made: dict[str, Any] = {"engine": self.engine, "method": self.method, "base": self.base_reference}
        if players:
            made["only_to_learn"] = list(players)[1:]
        for name, told in (("config.json", shape), ("genwright.json", made)):
            (folder / name).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """The weights of a saved folder. Raises ModelError when they do not belong to this shape. A part that is needed
        only to learn may be missing (an exported model)."""
        for number, (file, part) in enumerate((self.players() or {WEIGHTS: ""}).items()):
            if number == 0 or (folder / file).is_file():
                load_into(self.module.get_submodule(part), folder / file)
            else:
                self.notes.append(f"The model came without its {part}: to learn on, a new one begins from nothing.")


def open_kept(kind: Any, config_kind: Any, source: Path | None, config: Any, **made_with: Any) -> Any:
    """A learner of a `kind`, from the folder of a finished run or with random weights by `config`. It is made by
    kind(config, **facts of the folder, **made_with).

    Raises UsageError when both or neither are given, ModelError for a folder that is none of ours or is broken.
    """
    if source is None:
        if config is None:
            raise UsageError(f"{kind.engine} needs a source, or a config.", "config: {} takes the default shape.")
        return kind(config, **made_with)
    if config is not None:
        raise UsageError("A model has either a source or a config for random weights, not both.", "Leave one out.")
    config, facts = _shape_of(kind.engine, config_kind, source)
    try:
        model = kind(config, **facts, **made_with)
    except (TypeError, ValueError) as error:
        raise _foreign(kind.engine, source, error) from None
    model.load(source)
    return model


def _shape_of(engine: str, config_kind: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    from pydantic import ValidationError

    told = check_model_folder(folder)
    mine = {name: value for name, value in told.items() if name in config_kind.model_fields}
    facts = {name: value for name, value in told.items() if name not in mine and name != "model_type"}
    try:
        if told.get("model_type") != engine:
            raise ValueError("it is of another kind of model")
        return config_kind.model_validate(mine), facts
    except (ValueError, ValidationError) as error:
        raise _foreign(engine, folder, error) from None


def _foreign(engine: str, folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{folder / 'config.json'} describes no model of {engine}: {' '.join(str(error).split())[:200]}",
        f"Name a run of the engine {engine}.",
    )


def merged(module: Any) -> Any:
    """The module; where an adapter is on it, a copy in which what it has learned is in the weights."""
    return copy.deepcopy(module).merge_and_unload() if hasattr(module, "merge_and_unload") else module
