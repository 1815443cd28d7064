"""``explain.json``: one text, token by token, under every setting that one turn of a knob reaches.

In: a file that ``tangeval explain`` wrote. Out: its content, checked. All numbers of the page's
tab are in it: the page looks them up and computes none. Knows nothing of models, settings and
pages.

The *stages* of a setting are the distributions that a step's next token goes through: the model's
own; after contrast, each penalty and the constraint, as far as they are set; after ``temperature``, repeated n-grams
taken out; and after each cut, in the order of ``knobs``. Settings that agree on the first knobs share the first stages.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from tangeval.core.config import Section
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import Value
from tangeval.results.files import read_json

FILE = "explain.json"
SCHEMA: Literal[2] = 2
#: The tokens of largest logit that every step has as candidates.
LIKELIEST = 20
Share = Annotated[float, Field(ge=0, le=1)]


class Source(Section):
    """A base model or a checkpoint."""

    name: str
    fingerprint: str


class Turn(Section):
    """A knob that is turned: its values' places in ``settings``, the value that cuts least last."""

    name: str
    settings: list[int]


class ExplainedSetting(Section):
    """The poem's own setting, or it with one knob turned: what it writes by the same noise.

    ``knobs`` has every axis that is set, ``max_length`` too. ``stages`` are places in the
    ``stages`` of a step: the model, then the knobs in the order of ``Explained.knobs``.
    """

    knobs: dict[str, Value]
    stages: list[int]
    text: str
    finish_reason: Literal["stop", "length"]


class Candidate(Section):
    """A token that is shown of a step: raw logit, and the Gumbel noise of this sample, step and token.

    ``rank`` counts from 0 among the allowed tokens by falling logit, at the text's own setting; -1 would repeat an n-gram or
    break the constraint.
    """

    id: int
    rank: int
    logit: float
    noise: float


class Stage(Section):
    """A distribution over the next token.

    ``kept`` tokens stay; they held ``mass`` of the stage before. ``entropy`` is in nats, and
    ``choices`` is exp(entropy). ``p`` is each candidate's probability, 0 where it is removed.
    ``score`` is each candidate's logit / temperature + noise, given after ``temperature`` alone;
    empty at temperature 0.
    """

    kept: Annotated[int, Field(ge=1)]
    mass: Share
    entropy: Annotated[float, Field(ge=0)]
    choices: Annotated[float, Field(ge=1)]
    p: list[Share]
    score: list[float] = Field(default=[])


class Pick(Section):
    """The token that a setting chooses here, a candidate's id, and its score; None at temperature 0."""

    id: int
    score: float | None


class Step(Section):
    """One token of the text.

    ``candidates`` fall by raw logit, ties in the sampler's order: the ``LIKELIEST``, and wherever
    they stand the last token that a cut keeps, the first that it removes, the picks and the
    written ``token``. ``stages`` are all distinct ones; ``picks`` has an entry for each of
    ``settings``.
    """

    token: int
    candidates: list[Candidate]
    stages: list[Stage]
    picks: list[Pick]


class Explained(Section):
    """The content of ``explain.json``.

    ``number`` is the example's place in its split, from 1. ``follows`` says whose ``text`` the
    steps follow, ``step`` (from 1) which one to show first. ``setting`` has every knob that is set, those of
    the whole study too; ``settings`` begin with it. ``vocabulary`` spells every candidate. ``key`` is a
    digest of what decides a text that ``tangeval run`` explained.
    """

    schema_: Annotated[Literal[2], Field(alias="schema")] = SCHEMA
    tangeval: str
    study: str
    seed: int
    base_model: Source
    checkpoint: Source
    example_id: str
    split: str
    number: int
    input: str
    reference: str
    follows: Literal["setting", "reference"]
    sample: int
    text: str
    step: int
    setting: dict[str, Value]
    settings: list[ExplainedSetting]
    knobs: list[Turn]
    steps: Annotated[list[Step], Field(min_length=1)]
    vocabulary: dict[int, str]
    key: str = ""

    @model_validator(mode="after")
    def _whole(self) -> "Explained":
        for number, step in enumerate(self.steps, 1):
            many = len(step.candidates)
            if any(len(stage.p) != many or len(stage.score) not in (0, many) for stage in step.stages):
                raise ValueError(f"step {number}: a probability and a score for each candidate")
            if len(step.picks) != len(self.settings):
                raise ValueError(f"step {number}: a pick for each setting")
            named = {step.token} | {each.id for each in step.candidates} | {pick.id for pick in step.picks}
            if named - self.vocabulary.keys():
                raise ValueError(f"step {number}: a string for each token")
        stages = min(len(step.stages) for step in self.steps)
        if not all(0 <= place < stages for setting in self.settings for place in setting.stages):
            raise ValueError("settings: their stages are places in every step's")
        if not all(0 <= place < len(self.settings) for turn in self.knobs for place in turn.settings):
            raise ValueError("knobs: their settings are places in settings")
        return self

    def as_json(self) -> str:
        """Return the file's text."""
        return self.model_dump_json(by_alias=True) + "\n"


def read_explained(file: Path) -> Explained:
    """Return the content of an ``explain.json``.

    Raises:
        TangevalError: there is none, or it is damaged or of another version.
    """
    try:
        return Explained.model_validate(read_json(file))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise TangevalError(
            f"{file}: not an explain.json of this version ({where or 'no content'}: {error.errors()[0]['msg']}); "
            "`tangeval explain STUDY` makes one"
        ) from error
