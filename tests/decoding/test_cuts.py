"""Every cut keeps what transformers' warper keeps, alone and after others; what has none there, the authors' formula.

Rows are random and tang-mini's own, whose 16-bit weights leave ties: of tied tokens any may stay.
"""

import random

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from tangeval.core.knobs import CUTS, KNOB, Setting
from tangeval.core.types import ASSETS
from tangeval.decoding import sampler
from tangeval.decoding.decoder import TokenSequence, _begun
from tangeval.decoding.noise import gumbel
from tangeval.decoding.sampler import Kind
from tangeval.decoding.warpers import Candidates, cut
from tangeval.tasks.tang import TANG


def top_n_sigma(scores, value):
    """Tang et al., 2411.07641, algorithm 1; of finite logits."""
    sigma = torch.stack([row[row.isfinite()].double().std() for row in scores])
    return scores.double() >= (scores.double().amax(1) - value * sigma)[:, None]


def top_h_whole(scores, value):
    """Baghaei Potraghloo et al., 2509.02510: the largest first set of entropy h·H at most."""
    p, order = scores.double().softmax(-1).sort(descending=True, stable=True)
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for row, own in enumerate(p):
        whole = torch.distributions.Categorical(probs=own).entropy()
        for size in range(1, len(own) + 1):
            if size > 1 and torch.distributions.Categorical(probs=own[:size]).entropy() > value * whole:
                break
            kept[row, order[row, size - 1]] = True
    return kept


def p_less(scores, value):
    """Tan et al., 2509.23234: p at least the probability that two draws are the same."""
    p = scores.double().softmax(-1)
    return p >= p.square().sum(-1, keepdim=True)


def of(warper):
    """Transformers' own, in float64: its float32 sums are at another side of the bound in some rows of many tokens."""

    def kept(scores, value):
        falls = scores - scores.amax(dim=1, keepdim=True)
        return warper(value)(None, falls.double()).isfinite()

    return kept


ORACLES = {
    "top_n_sigma": (top_n_sigma, (0.5, 1.0, 2.0)),
    "top_h": (of(TopHLogitsWarper), (0.1, 0.4, 0.9)),
    "top_h_whole": (top_h_whole, (0.1, 0.4, 0.9)),
    "top_k": (of(TopKLogitsWarper), (1, 5, 70)),
    "top_p": (of(TopPLogitsWarper), (0.3, 0.9, 0.999)),
    "min_p": (of(MinPLogitsWarper), (0.02, 0.2, 1.0)),
    "typical_p": (of(TypicalLogitsWarper), (0.2, 0.7, 0.95)),
    "epsilon_cutoff": (of(EpsilonLogitsWarper), (3e-4, 9e-3, 0.3)),
    "eta_cutoff": (of(EtaLogitsWarper), (3e-4, 9e-3, 0.3)),
    "p_less": (p_less, (1,)),
}


def real_rows(number):
    """The logits of tang-mini after each token of the sample's poems."""
    folder = ASSETS / "tang-mini"
    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer))
    texts = [example.input + example.reference for example in TANG.load("sample", None).examples]
    with torch.inference_mode():
        rows = [
            model(**tokenizer(text, return_tensors="pt")).logits[0].float() for text in texts[: number // 30]
        ]
    return torch.cat(rows)[:number]


@pytest.fixture(scope="module")
def rows():
    """Sorted rows: 9,700 random ones, flat to steep, and 300 of a model."""
    chance = torch.Generator().manual_seed(0)
    made = torch.randn(9700, 200, generator=chance) * torch.rand(9700, 1, generator=chance) * 6
    return [each.sort(dim=-1, descending=True, stable=True).values for each in (made, real_rows(300))]


def kept_by(scaled, knobs):
    """Which tokens of sorted rows stay after ``knobs``, name → value: bool ``[S, V]``."""
    types = {name: torch.int64 if KNOB[name].type is int else torch.float64 for name in knobs}
    values = {name: torch.full((len(scaled),), value, dtype=types[name]) for name, value in knobs.items()}
    *_, (_, left) = cut(Candidates.whole(scaled, values), values)
    place, first = torch.arange(scaled.shape[1]), 0 if left.first is None else left.first[:, None]
    return (place >= first) & (place < left.kept[:, None])


def expected(scaled, knobs):
    """The same by the oracles, one after another in their order."""
    for name in CUTS:
        if name in knobs:
            scaled = scaled.masked_fill(~ORACLES[name][0](scaled, knobs[name]), -torch.inf)
    return scaled.isfinite()


def test_every_cut_has_an_oracle():
    assert set(ORACLES) == set(CUTS)


@pytest.mark.parametrize("name", ORACLES)
def test_a_cut_keeps_what_its_oracle_keeps(name, rows):
    for scaled in rows:
        if name == "top_h_whole":
            scaled = scaled[::50, :200]
        for value in ORACLES[name][1]:
            assert differing(scaled, {name: value}) == 0


def test_cuts_compose_in_the_order_of_transformers(rows):
    chance = random.Random(1)
    for scaled in (part for each in rows for part in each.split(max(1, len(each) // 25))):
        names = chance.sample([name for name in CUTS if name != "top_h_whole"], chance.randint(2, 5))
        assert differing(scaled, {name: chance.choice(ORACLES[name][1]) for name in names}) == 0


def differing(scaled, knobs):
    """In how many rows other logits stay."""
    ours, theirs = (
        scaled.masked_fill(~kept, -torch.inf).sort(dim=-1).values
        for kept in (kept_by(scaled, knobs), expected(scaled, knobs))
    )
    return int((ours != theirs).any(dim=1).sum())


@pytest.mark.parametrize("candidates", [sampler.CANDIDATES, (2, 20), (120,)])
def test_tokens_are_those_of_the_oracles_however_few_candidates_are_looked_at(candidates, rows, monkeypatch):
    """Each cut alone and two together; so a cut is never called certain where more candidates would change it."""
    monkeypatch.setattr(sampler, "CANDIDATES", candidates)
    chance = random.Random(2)
    names = [name for name in CUTS if name != "top_h_whole"]
    grid = [{name: value} for name in names for value in ORACLES[name][1]]
    grid += [{name: chance.choice(ORACLES[name][1]) for name in chance.sample(names, 2)} for _ in range(30)]
    settings = [Setting.of(temperature=chance.choice((0.7, 1.5)), **knobs) for knobs in grid]
    logits = rows[0][::300, torch.randperm(200, generator=torch.Generator().manual_seed(3))]
    logits[:, 7] = -torch.inf  # forbidden
    sequences = [TokenSequence(row, setting, row) for row in range(len(logits)) for setting in settings]
    live, *_ = _begun(sequences, [], logits.device)
    kinds = live.kind.bincount(minlength=len(Kind)).tolist()
    token = sampler.choose(logits, live.batch, kinds, live.temperatures, live.keys, 0)[live.line.argsort()]
    noise = gumbel(torch.arange(len(logits)), 0, torch.arange(200).expand(len(logits), -1))
    for place, (setting, knobs) in enumerate(zip(settings, grid, strict=True)):
        scaled = logits / setting.temperature
        kept = expected(scaled, knobs)
        assert torch.equal(
            token[place :: len(settings)], (scaled.masked_fill(~kept, -torch.inf) + noise).argmax(1)
        )
