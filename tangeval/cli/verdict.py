"""``verdict``: what is shown, in words; ``run``, ``summarize`` and ``select`` end with it."""

from typing import TYPE_CHECKING

from rich.text import Text

from tangeval.cli.base import Place, api, command, console
from tangeval.core.words import say

if TYPE_CHECKING:
    from tangeval.reporting.notebook import Results


@command("verdict")
def verdict(place: Place) -> None:
    """Say in words what is shown, what is not, and how many poems would show it."""
    show_verdict(api.verdict(place))


def show_verdict(results: "Results") -> None:
    """What may be said of the results, a paragraph a question."""
    found, speaker = results.verdict, results.speaker
    for each in speaker.all(found):
        line = Text(
            say(
                f"verdict.line{'' if each.word else '.plain'}",
                question=each.question,
                status=each.word,
                answer=each.answer,
            )
        )
        line.stylize("bold", 0, len(each.question))
        console.print(line)
    console.say(f"{speaker.basis(found)} {results.run.verdict_text}")
