"""``judge`` and ``coherence``: language models, on a server and on this machine, measure outputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from tangeval.cli.base import Knobs, Place, Split, api, command, console, render
from tangeval.cli.progress import watch

if TYPE_CHECKING:
    from tangeval.judge.grading import Wanted


@dataclass(frozen=True)
class Judging:
    """The judge, and how it is asked."""

    endpoint: Annotated[
        str, Option(help="An OpenAI-compatible server; mostly ends in /v1. It is sent $OPENAI_API_KEY.")
    ]
    model: Annotated[str, Option(help="The model that judges, as the server names it.")]
    pairwise: Annotated[
        bool, Option("--pairwise", help="Which of two outputs is better, in both orders.")
    ] = False
    votes: Annotated[int | None, Option(min=1, help="How often each is judged (3; pairs: 1).")] = None
    temperature: Annotated[float, Option(min=0, max=2, help="The judge's own.")] = 1.0
    max_tokens: Annotated[int, Option(min=1, help="The longest answer, reasoning included.")] = 2048
    retries: Annotated[int, Option(min=0, help="How often a busy server is asked again.")] = 5
    prompt: Annotated[Path | None, Option(help="Other instructions for the judge (default: its own).")] = None
    limit: Annotated[int, Option(min=0, help="The most calls this run may make.")] = 500
    parallel: Annotated[int, Option(min=1, help="Calls in flight at a time.")] = 8
    human: Annotated[Path | None, Option(help="A CSV file of people's votes to hold it against.")] = None


@dataclass(frozen=True)
class Outputs:
    """The outputs that are judged."""

    checkpoint: Annotated[
        list[str] | None, Option(help="A checkpoint to judge; again for more (default: the selected one).")
    ] = None
    base: Annotated[bool, Option("--base", help="Judge the model before fine-tuning too.")] = False
    reference: Annotated[bool, Option("--reference", help="Pairs with the reference too.")] = False
    random: Annotated[bool, Option("--random", help="Judge random endings too.")] = False
    setting: Knobs = None
    split: Split = "test"
    samples: Annotated[int, Option(min=1, help="Outputs of each poem.")] = 1

    def wanted(self, human: Path | None = None) -> "Wanted":
        from tangeval.judge.grading import Wanted

        names, knobs = tuple(self.checkpoint or ()), tuple(self.setting or ())
        beside = (self.reference, self.random)
        return Wanted(names, self.base, knobs, self.split, self.samples, *beside, human)


@command("judge")
def judge(place: Place, by: Judging, of: Outputs) -> None:
    """Let a language model grade prosody and fluency, 0 to 10, or compare pairs; goes on where it stopped."""
    from tangeval.cli.judged import show_judged
    from tangeval.judge.asking import Judge, PairPrompt, Prompt

    prompt = api.judge_prompt(place, PairPrompt if by.pairwise else Prompt, by.prompt)
    votes = by.votes or (1 if by.pairwise else 3)
    judge = Judge(by.endpoint, by.model, prompt, votes, by.temperature, by.max_tokens, by.retries)
    wanted = of.wanted(by.human)
    found = api.judge(place, judge, wanted, limit=by.limit, parallel=by.parallel, watch=watch(console))
    show_judged(found, judge, of.split)


@command("coherence")
def coherence(
    place: Place,
    of: Outputs,
    by: Annotated[str, Option(help="The model that judges, as base_model names one.")] = "tang-mini",
) -> None:
    """Measure how much better outputs follow their own couplet than others, by a small model on this machine."""
    from tangeval.judge.coherence import summarize

    found = summarize(api.coherence(place, of.wanted(), by=by, watch=watch(console))).to_dict("records")
    names = {True: "its own base", False: by}
    rows = [
        (r["checkpoint"], names[r["own_base"]], render.interval(r, "coherence"), str(r["poems"]))
        for r in found
    ]
    title = f"Coherence 題意 on the {of.split} split, in nats a character"
    render.show_table(title, ("checkpoint", "judge", "coherence", "poems"), rows, right=2)
    if any(row["own_base"] for row in found):
        render.say(
            f"{by} is these checkpoints' own base: do not rank them by this; give another --by", "yellow"
        )
    render.say("every output is in coherence.csv")
