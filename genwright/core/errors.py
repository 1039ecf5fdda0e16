"""Everything that can go wrong, in one tree. Doors (command line, server, studio) translate it once.

GenwrightError
├─ UsageError       the caller asked wrongly                exit 2, HTTP 400
│  ├─ RecipeError     fields of a recipe are wrong (all of them, each with its path)
│  └─ UnknownPlugin   no such metric, method, engine … (did you mean …)
├─ MissingExtra     a library of an extra is not installed  exit 2, HTTP 501
├─ NotSaved         the disk is full (nn/checkpoint.py)      exit 75, HTTP 507
├─ DataError        data that cannot be read or learned     exit 3, HTTP 422
├─ ModelError       a model cannot load or answer           exit 4, HTTP 503
└─ Refused          a guard said no                         exit 5, HTTP 403
"""

from __future__ import annotations

from collections.abc import Sequence


class GenwrightError(Exception):
    """Say what happened in `message` and, in `hint`, what to do next."""

    exit_code = 1
    status = 500

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, object]:
        """The error as plain data, for `--json` and HTTP bodies."""
        return {"error": type(self).__name__, "message": self.message, "hint": self.hint}


class UsageError(GenwrightError):
    exit_code = 2
    status = 400


class RecipeError(UsageError):
    """All problems of a recipe at once: `problems` is a list of (path, sentence)."""

    def __init__(self, where: str, problems: Sequence[tuple[str, str]]):
        self.problems = list(problems)
        lines = "".join(f"\n  {path}: {sentence}" for path, sentence in self.problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        super().__init__(
            f"{where} has {count}:{lines}",
            "Mend them and try again; `genwright recipe explain KEY` tells what a key means.",
        )

    def as_dict(self) -> dict[str, object]:
        return super().as_dict() | {"problems": [{"path": p, "problem": s} for p, s in self.problems]}


class UnknownPlugin(UsageError, ValueError):
    """A name that is on no shelf. A ValueError too, so that a recipe lists it with its other problems."""


class MissingExtra(GenwrightError):
    """A library that only an extra installs."""

    exit_code = 2
    status = 501

    def __init__(self, library: str, extra: str):
        super().__init__(f"This needs {library}, which is not installed.", f"pip install 'genwright[{extra}]'")


class DataError(GenwrightError):
    exit_code = 3
    status = 422


class ModelError(GenwrightError):
    exit_code = 4
    status = 503


class Refused(GenwrightError):
    """A guard stopped a request or an answer: `guard` and `rule` say which."""

    exit_code = 5
    status = 403

    def __init__(self, message: str, hint: str = "", *, guard: str = "", rule: str = ""):
        super().__init__(message, hint)
        self.guard = guard
        self.rule = rule
