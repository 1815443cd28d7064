"""Whether a server honours the knobs that a study sets: one comparison of texts for each.

In: a study's grid, and a function that draws texts. Out: nothing, or an error that names the knob that
is ignored. Knows nothing of servers and requests.

Servers leave out in silence what they do not know. A scale or a cut at its extreme value must leave at
most half as many different texts as a high temperature alone. It need not leave one: 16-bit logits tie,
and all that ties at the k-th place is kept; and batched arithmetic differs in the last bits. A server that
refuses such a value knows the knob. What no setting of the study needs is not asked for.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOBS, Knob
from tangeval.core.study import Decoding
from tangeval.engines.base import Output

#: Draws of a comparison; the different texts among them that make one possible; OpenAI's highest temperature.
DRAWS, ENOUGH, HOT = 24, 8, 2.0
#: Tokens of a text: the first that gives enough different texts. A prompt may have but one likely first token.
LENGTHS = (1, 4, 24)
#: Returns a number of texts with some knobs, the others off; none where the server refuses these values.
Draw = Callable[[Mapping[str, float], int], list[Output]]


def check_honoured(decoding: Decoding, draw: Draw) -> None:
    """Compare texts with and without each knob that some setting of the grid has on, and greedy ones.

    Raises:
        TangevalError: they clearly look the same; the message names the knob and the remedy.
    """
    temperatures = [setting.temperature for setting in decoding.settings()]
    hot, free = _hot(max(temperatures), draw) if any(temperatures) else ({"max_length": LENGTHS[-1]}, [])
    many = _different(free) if free else DRAWS  # greedy texts alone: most of them must be one
    if many < ENOUGH and hot["temperature"] == HOT:
        remedy = "decoding.temperature=0, or engine.n=1"
        _refuse("temperature", f"{DRAWS} draws at {HOT:g} give {many} texts", remedy)
    if free and many >= ENOUGH and all(output.finish == "stop" for output in free):
        said = f"no text is said to be cut at {hot['max_length']} tokens (finish_reason)"
        _refuse("max_length", said, "take a server that says so")
    for knob, value in _trials(decoding):
        remedy = f"decoding.{knob.name}={knob.off:g} leaves it out"
        if knob.kind not in ("scale", "cut"):
            cold = {"temperature": min(temperatures), "max_length": LENGTHS[-1]}
            if {o.text for o in draw(cold, 4)} & {o.text for o in draw({**cold, knob.name: value}, 4)}:
                _refuse(knob.name, f"{value:g} changes no text", remedy)
        elif many < ENOUGH:
            why = f"it refuses temperature {HOT:g}, and {DRAWS} draws at {hot['temperature']:g} give {many} texts"
            warnings.warn(f"decoding.{knob.name}: cannot be told to be honoured: {why}", stacklevel=2)
        else:
            tried = draw({**hot, knob.name: value}, DRAWS)
            own = value == 0 == knob.off and knob.kind == "scale"
            if (left := _different(tried)) > max(1, many / 2) or (own and not tried):
                said = f"{DRAWS} draws at {value:g} give {left} texts" if tried else f"it refuses {value:g}"
                beside = f", and {many} at temperature {hot['temperature']:g} alone" if free and tried else ""
                _refuse(knob.name, said + beside, f"leave 0 out of decoding.{knob.name}" if own else remedy)


def tried(decoding: Decoding) -> list[str]:
    """Return the names of the knobs that ``check_honoured`` tries."""
    return list(dict.fromkeys(["temperature", "max_length", *(knob.name for knob, _ in _trials(decoding))]))


def _hot(hottest: float, draw: Draw) -> tuple[dict[str, float], list[Output]]:
    """Knobs of texts that differ, and these texts: at ``HOT``, or at the study's hottest where the server refuses that."""
    for temperature in (HOT, hottest):
        for length in LENGTHS:
            hot = {"temperature": temperature, "max_length": length}
            if not (free := draw(hot, DRAWS)) or _different(free) >= ENOUGH:
                break
        if free:
            break
    return hot, free


def _trials(decoding: Decoding) -> Iterator[tuple[Knob, float]]:
    """The knobs to try and at which value: the extreme of what is on, and temperature 0 where a setting has it."""
    sequences = [replace(setting, values=setting.sequence) for setting in decoding.settings()]
    for knob in KNOBS:
        values = {getattr(s, knob.name) for s in sequences} if knob.axis else {getattr(decoding, knob.name)}
        if knob.kind == "scale" and knob.off in values:
            yield knob, knob.off
        if knob.kind != "length" and values - {knob.off}:
            farther = abs(knob.low - knob.off) > abs(knob.high - knob.off)
            yield knob, knob.low if knob.kind == "scale" or knob.high == math.inf or farther else knob.high


def _different(outputs: list[Output]) -> int:
    return len({output.text for output in outputs})


def _refuse(knob: str, found: str, remedy: str) -> None:
    raise TangevalError(f"decoding.{knob}: the server does not honour it: {found}; {remedy}")
