"""Whether a server honours the knobs that a study sets, and whether its settings share noise: comparisons of texts.

In: a study's grid, and a function that draws texts of several prompts. Out: ``Noise``, or an error that names the knob
that is ignored. Knows nothing of servers and requests.

Servers leave out in silence what they do not know. A scale or a cut at its extreme value must leave at most half as
many different texts as a high temperature alone. It need not leave one: 16-bit logits tie, all that ties at the k-th
place is kept, and batched arithmetic differs in the last bits; so several prompts are asked. A server that refuses such
a value knows the knob. What no setting of the study needs is not asked for.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOBS, Knob
from tangeval.core.study import Decoding
from tangeval.engines.base import Output

#: The prompts of a comparison, and the draws of each; OpenAI's highest temperature.
PROMPTS, EACH, HOT = 6, 6, 2.0
#: The share of different texts that makes a comparison possible.
ENOUGH = 0.6
#: Tokens of a text: the first that gives enough different texts. A prompt may have but one likely first token, and each
#: further token may tie.
LENGTHS = (1, 2, 4, 8, 16, 24)
#: What temperature is multiplied by to leave nearly all texts of as many tokens as they are, where settings share noise.
_NEAR, _FEW = 0.99, 4
#: The kinds of knobs that change greedy texts too.
_OF_TEXT = ("constraint", "history")
Knobs = Mapping[str, float]
Texts = list[list[Output]]  #: of each prompt, of the same seeds
#: Returns texts with each of some knobs, the others off; none where the server refuses these values.
Draw = Callable[[Sequence[Knobs]], list[Texts]]


@dataclass(frozen=True)
class Noise:
    """Of hot texts the share that are the same with the same seeds at temperatures 1 % apart, and with other seeds.

    ``variance_ratio``: of two neighbouring settings' lengths in tokens, the variance of the differences under the same
    seeds ÷ that of independent draws; None where lengths never vary or a study draws by one setting.
    """

    same_seed: float
    other_seed: float
    variance_ratio: float | None

    @property
    def shared(self) -> bool:
        """Whether settings are drawn under common random numbers: the same seeds leave most of what may vary the same."""
        return self.same_seed > (1 + self.other_seed) / 2


def check(decoding: Decoding, draw: Draw) -> Noise | None:
    """Compare texts with and without each knob that some setting has on, greedy ones, and ones of the same seeds.

    Returns:
        None where nothing is drawn, or too few texts differ.

    Raises:
        TangevalError: a knob clearly changes nothing; the message names it and the remedy.
    """
    temperatures = [setting.temperature for setting in decoding.settings()]
    hot, free = _hot(max(temperatures), draw) if any(temperatures) else ({"max_length": LENGTHS[-1]}, [])
    share = varied(free) if free else 1.0  # greedy texts alone: most of them must be one
    _check_free(hot, free, share)
    trials = list(_trials(decoding))
    pairs = _noise_knobs(decoding, hot) if free and share >= ENOUGH else []
    cold = {"temperature": min(temperatures), "max_length": LENGTHS[-1]}
    asked = [{**(cold if knob.kind in _OF_TEXT else hot), knob.name: value} for knob, value in trials]
    made = draw([*asked, *pairs])
    for (knob, value), texts in zip(trials, made[: len(trials)], strict=True):
        remedy = f"decoding.{knob.name}={knob.off:g} leaves it out"
        if knob.kind in _OF_TEXT:
            same = [
                {o.text for o in a} & {o.text for o in b}
                for a, b in zip(texts, *draw([cold]), strict=bool(texts))
            ]
            if sum(map(bool, same)) > len(same) / 2:
                _refuse(knob.name, f"{value:g} changes no text", remedy)
        elif share < ENOUGH:
            why = f"it refuses temperature {HOT:g}, and {_differ(share)} at {hot['temperature']:g}"
            warnings.warn(f"decoding.{knob.name}: cannot be told to be honoured: {why}", stacklevel=2)
        else:
            own = value == 0 == knob.off and knob.kind == "scale"
            if (own and not texts) or (texts and varied(texts) > share / 2):
                said = f"{_differ(varied(texts))} at {value:g}" if texts else f"it refuses {value:g}"
                beside = (
                    f", and {_differ(share)} at temperature {hot['temperature']:g} alone"
                    if free and texts
                    else ""
                )
                _refuse(knob.name, said + beside, f"leave 0 out of decoding.{knob.name}" if own else remedy)
    return _noise(*made[len(trials) :]) if pairs and all(made[len(trials) :]) else None


def tried(decoding: Decoding) -> list[str]:
    """Return the names of the knobs that ``check`` tries."""
    return list(dict.fromkeys(["temperature", "max_length", *(knob.name for knob, _ in _trials(decoding))]))


def varied(texts: Texts) -> float:
    """Return the share of different texts: of a prompt's draws after the first, those that give a text of their own."""
    return sum((len({o.text for o in own}) - 1) / (len(own) - 1) for own in texts) / len(texts)


def _check_free(hot: Knobs, free: Texts, share: float) -> None:
    """Refuse a server whose hot texts are alike, or none of which is cut where most are longer."""
    if share < ENOUGH and hot["temperature"] == HOT:
        _refuse("temperature", f"{_differ(share)} at {HOT:g}", "decoding.temperature=0, or engine.n=1")
    if free and share >= ENOUGH and all(output.finish == "stop" for own in free for output in own):
        said = f"no text is said to be cut at {hot['max_length']:g} tokens (finish_reason)"
        _refuse("max_length", said, "take a server that says so")


def _hot(hottest: float, draw: Draw) -> tuple[Knobs, Texts]:
    """Knobs of texts that differ, and these texts: at ``HOT``, or at the study's hottest where the server refuses that."""
    for temperature in (HOT, hottest):
        for length in LENGTHS:
            hot = {"temperature": temperature, "max_length": length}
            (free,) = draw([hot])
            if not free or varied(free) >= ENOUGH:
                break
        if free:
            break
    return hot, free


def _trials(decoding: Decoding) -> Iterator[tuple[Knob, float]]:
    """The knobs to try and at which value: the extreme of what is on, and temperature 0 where a setting has it."""
    sequences = [replace(setting, values=setting.sequence) for setting in decoding.settings()]
    for knob in KNOBS:
        values = {getattr(s, knob.name) for s in sequences}
        if knob.kind == "scale" and knob.off in values:
            yield knob, knob.off
        if knob.kind != "length" and values - {knob.off}:
            farther = abs(knob.low - knob.off) >= abs(knob.high - knob.off)
            yield knob, knob.low if knob.kind == "scale" or knob.high == math.inf or farther else knob.high


def _noise_knobs(decoding: Decoding, hot: Knobs) -> list[Knobs]:
    """Two sets of knobs that are nearly one; and two neighbouring settings of the study, where it draws by several."""
    near = {**hot, "max_length": max(hot["max_length"], _FEW)}
    drawn = sorted(
        {s for s in decoding.settings() if s.temperature and s.max_length == max(decoding.max_length)}
    )
    own = [setting.as_dict() for setting in drawn[-2:]] if len(drawn) > 1 else []
    return [near, near | {"temperature": near["temperature"] * _NEAR}, *own]


def _noise(one: Texts, near: Texts, *settings: Texts) -> Noise:
    same = [
        a.text == b.text
        for own, other in zip(one, near, strict=True)
        for a, b in zip(own, other, strict=True)
    ]
    return Noise(sum(same) / len(same), 1 - varied(one), _variance_ratio(*settings) if settings else None)


def _variance_ratio(*settings: Texts) -> float | None:
    """See ``Noise``; variances are within prompts."""
    one, other = (np.array([[output.tokens for output in own] for own in texts], float) for texts in settings)
    first, second, between = (each.var(axis=1, ddof=1).mean() for each in (one, other, one - other))
    return float(between / (first + second)) if first + second else None


def _differ(share: float) -> str:
    return f"{share:.0%} of texts differ"


def _refuse(knob: str, found: str, remedy: str) -> None:
    raise TangevalError(f"decoding.{knob}: the server does not honour it: {found}; {remedy}")
