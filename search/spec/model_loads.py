"""The loads of several models: a mix of them, and what others get in the background."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import Field

from loadgen.payloads import Payload, read_payloads
from search.errors import SpecProblem
from search.spec.section import Section, UserPath


class BackgroundSection(Section):
    """The load that another model gets in every window. Its requests must not fail either."""

    model: str = Field(description="Name of a model that the server has beside the tuned one.")
    requests: UserPath = Field(
        description="A JSON Lines file like `model.requests`, for this model."
    )
    rate_rps: float = Field(gt=0, description="Requests per second.")
    arrivals: Literal["constant", "poisson"] = Field(
        default="constant",
        description="Time between requests, constant or exponentially distributed.",
    )


def section_problems(
    mix: Mapping[str, float],
    requests: Collection[str],
    background: Sequence[BackgroundSection],
) -> Iterator[SpecProblem]:
    """Yield the problems of the section `load` that need no file."""
    if len(mix) == 1:
        (name,) = mix
        yield SpecProblem("mix", f"has only {name}; name at least two models, or remove it")
    for name in requests:
        if name not in mix:
            yield SpecProblem(f"requests.{name}", f"load.mix has no model {name}; add its share")
    names = [each.model for each in background]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield SpecProblem(f"background.{index}.model", f"{name} is named twice; remove one")
        if name in mix:
            problem = f"{name} is in load.mix already; a model is in the mix or in the background"
            yield SpecProblem(f"background.{index}.model", problem)


def model_problems(
    tuned: str,
    others: Collection[str],
    mix: Mapping[str, float],
    requests: Mapping[str, Path],
    own_requests: Path,
    background: Sequence[BackgroundSection],
    space_models: Collection[str],
) -> Iterator[SpecProblem]:
    """Yield the problems of models that are named in a specification.

    Args:
        tuned: name of the model of `model.archive`.
        others: names of the models that are served beside it.
        requests: requests files of models in the mix; `own_requests` is that of the tuned model.
        space_models: other models whose settings vary.
    """
    served = ", ".join((tuned, *others))
    unknown = f"is not a model of the server, which has {served}; add its archive to serving.models"
    for section, names in (("load.mix", mix), ("space.models", space_models)):
        for name in names:
            if name != tuned and name not in others:
                yield SpecProblem(f"{section}.{name}", f"{name} {unknown}")
    if mix and tuned not in mix:
        yield SpecProblem("load.mix", f"lacks {tuned}, the model of model.archive; add its share")
    for name in mix:
        if name in others and name not in requests:
            problem = f"{name} has no requests; give their file as load.requests.{name}"
            yield SpecProblem(f"load.mix.{name}", problem)
    if requests.get(tuned, own_requests) != own_requests:
        problem = f"model.requests names the requests of {tuned} already; remove one"
        yield SpecProblem(f"load.requests.{tuned}", problem)
    for name in space_models:
        if name in others and name not in mix:
            problem = f"{name} is tuned, but has no share of load.mix; add one"
            yield SpecProblem(f"space.models.{name}", problem)
    for index, each in enumerate(background):
        if each.model == tuned:
            problem = f"{tuned} is the model that is tuned; name another one"
            yield SpecProblem(f"load.background.{index}.model", problem)
        elif each.model not in others:
            yield SpecProblem(f"load.background.{index}.model", f"{each.model} {unknown}")


def payloads_of(model: str, requests: Path) -> list[Payload]:
    """Read the requests of a model, which go to its predictions unless they have a path.

    Raises:
        PayloadError: the file cannot be read, or has a line that is not a request.
    """
    path = f"/predictions/{quote(model, safe='')}"
    return [replace(each, path=each.path or path) for each in read_payloads(requests)]
