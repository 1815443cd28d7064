"""Whether knobs are honoured and noise is shared, asked of made-up models whose logits tie as 16-bit ones do."""

import numpy as np
import pytest

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOB
from tangeval.core.study import Decoding
from tangeval.engines.base import Output
from tangeval.engines.knob_checks import EACH, PROMPTS, check

WORDS, EOS = 64, 0
STUDY = Decoding(
    temperature=[0.7, 1.0], top_k=[0, 5], top_p=[0.9, 1.0], max_length=[30], no_repeat_ngram_size=0
)
WORLDS = range(10)


def server(world, *, tied=(), ignores=(), noise="vllm", peaked=0):
    """A ``Draw``: the first ``peaked`` tokens are all but certain; of ``tied`` prompts two lead at each later place.

    ``noise`` is Gumbel, of seed and place (``vllm``), of the temperature too (``own``), or of nothing (``free``).
    """

    def token(prompt, made, knobs, seed):
        place = len(made)
        logits = np.random.default_rng([world, prompt, *made]).normal(size=WORDS) * (
            200 if place < peaked else 3
        )
        logits = np.round(logits * 16) / 16
        if prompt in tied and place >= peaked:
            logits[np.argsort(logits)[-2]] = logits.max()
        values = {name: knobs.get(name, KNOB[name].off) for name in ("temperature", "top_k", "top_p")}
        values |= {name: {"temperature": 1.0}.get(name, KNOB[name].off) for name in ignores}
        if not values["temperature"]:
            return int(logits.argmax())
        logits = logits / values["temperature"]
        if k := int(values["top_k"]):
            logits[logits < np.sort(logits)[-k]] = -np.inf
        order = np.argsort(-logits, kind="stable")
        share = np.exp(logits[order] - logits.max())
        kept = np.cumsum(share / share.sum()) - share / share.sum() < values["top_p"]
        logits[order[~kept]] = -np.inf
        key = {"vllm": [seed, place], "own": [seed, place, int(1e6 * values["temperature"])], "free": None}[
            noise
        ]
        return int((logits + np.random.default_rng(key).gumbel(size=WORDS)).argmax())

    def text(prompt, knobs, seed):
        made = []
        while len(made) < knobs["max_length"] and EOS not in made:
            made.append(token(prompt, made, knobs, seed))
        return Output(str(made), len(made), "stop" if EOS in made else "length")

    def draw(many):
        return [
            [[text(p, knobs, seed) for seed in range(1, EACH + 1)] for p in range(PROMPTS)] for knobs in many
        ]

    return draw


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("peaked", [0, 5])
def test_ties_on_a_fifth_of_the_prompts_are_no_sign_that_a_cut_is_ignored(world, peaked):
    assert check(STUDY, server(world, tied=(0, 3), peaked=peaked)) is not None


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("knob", ["top_k", "top_p", "temperature"])
def test_a_knob_that_is_ignored_is_found_out_whatever_ties(world, knob):
    with pytest.raises(
        TangevalError, match=f"decoding.{knob}: the server does not honour it: .* of texts differ"
    ):
        check(STUDY, server(world, tied=(0, 3), ignores=(knob,)))


@pytest.mark.parametrize("world", WORLDS)
def test_noise_of_seed_and_place_is_shared_by_settings(world):
    noise = check(STUDY, server(world))
    assert noise.shared
    assert noise.variance_ratio < 1


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", ["own", "free"])
def test_noise_of_the_temperature_or_of_no_seed_is_not(world, kind):
    assert not check(STUDY, server(world, noise=kind)).shared


def test_the_ratio_of_variances_is_that_of_lengths():
    """Of neighbours that share all noise it is 0, of independent ones about 1."""
    many = Decoding(temperature=[1.0], top_k=[0], top_p=[0.999, 1.0], max_length=[30], no_repeat_ngram_size=0)
    shared = [check(many, server(world)).variance_ratio for world in WORLDS[:4]]
    apart = [check(many, server(world, noise="free")).variance_ratio for world in WORLDS[:4]]
    assert np.mean(shared) < 0.5
    assert 0.6 < np.mean(apart) < 1.5
