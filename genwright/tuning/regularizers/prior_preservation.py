"""Prior preservation: what the model painted of a class before tuning is taught beside the rows (DreamBooth)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Example, Loss, Part, Request, UsageError, assistant, fingerprint, user
from genwright.core import Settings as Options
from genwright.tuning.steps import Step, added


class Settings(Options):
    """Options of the class pictures."""

    prompt: str = Field(description="What the class is called, e.g. 'a photo of a dog'")
    pictures: int = Field(64, ge=1, description="Pictures of the class, painted before tuning and kept in the run")
    strength: float = Field(1.0, ge=0, description="Weight of their loss, beside 1 of the rows' own")
    options: dict[str, Any] = Field({}, description="Options of the requests that paint them: {steps: 30}")


def regularize(step: Step, learner: Any, settings: Settings, *, context: Any) -> Step:
    """Beside each pass as many pictures of the class, strength · their mean loss added (Ruiz et al. 2023, arXiv
    2208.12242).

    They are painted by the model as it is before its first step, and again only where they are missing. Raises
    UsageError for a model that does not paint.
    """
    if not settings.strength:
        return step
    if getattr(learner, "gives", "text") != "image":
        raise UsageError("Prior preservation is for models that paint.", "Leave it out.")
    items = [context.encode(one) for one in _class_pictures(learner, settings, context)]

    def beside(batch: Any) -> Loss:
        import torch

        loss = step(batch)
        chosen = torch.randint(len(items), (len(batch),)).tolist()
        prior = context.objective(learner, learner.collate([items[i] for i in chosen]).to(context.device))
        return added(loss, "prior", prior.total / prior.weight, settings.strength)

    return beside


def _class_pictures(learner: Any, settings: Settings, context: Any) -> list[Example]:
    """One file a picture, in a folder named by what they are painted from, so that a killed run goes on with them."""
    import torch

    key = fingerprint(learner.base_reference, settings.prompt, settings.options, context.seed)[:16]
    files = [context.folder / "class_pictures" / key / f"{number}.png" for number in range(settings.pictures)]
    for number, file in enumerate(files):
        options = {**settings.options, "n": 1}
        asked = Request(messages=(user(settings.prompt),), seed=context.seed + number, options=options, out=file)
        if not file.is_file():
            with torch.random.fork_rng():
                list(learner.generate(asked))
    return [Example((user(settings.prompt), assistant(Part("image", path=file)))) for file in files]
