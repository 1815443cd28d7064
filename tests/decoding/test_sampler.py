"""The sampler against Hugging Face's warpers and the distribution they define."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from transformers import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tangeval.core.knobs import KNOB, Setting
from tangeval.decoding import sampler
from tangeval.decoding.cuda import has_kernels
from tangeval.decoding.noise import gumbel, noise_key
from tangeval.decoding.sampler import Kind, SequenceBatch, kind_of


def batch(row, temperature, key, **knobs) -> SequenceBatch:
    """Sequences by lists: rows, places of temperatures and keys, and the values of each cut."""
    values = {name: torch.tensor(each).double() for name, each in knobs.items()}
    values["top_k"] = values["top_k"].long()
    return SequenceBatch(*map(torch.tensor, (row, temperature, key)), values)


def choose(logits, sequences, temperatures, keys, step) -> torch.Tensor:
    """The sampler for sequences in any order: each sequence's token."""
    kinds = torch.tensor(
        [
            kind_of(Setting.of(temperature=float(temperatures[t]), top_k=k, top_p=p))
            for t, k, p in zip(
                sequences.temperature, sequences.knobs["top_k"], sequences.knobs["top_p"], strict=True
            )
        ]
    )
    order = kinds.argsort(stable=True)
    several = kinds.bincount(minlength=len(Kind)).tolist()
    token = torch.empty_like(order)
    token[order] = sampler.choose(logits, sequences[order], several, temperatures, keys, step)
    return token


def hugging_face(logits: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    """The warped logits ``[V]`` as transformers' ``generate`` makes them, in its order."""
    scores = TemperatureLogitsWarper(temperature)(None, logits[None])
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return scores[0]


def kept_by_choose(logits, temperature, top_k, top_p, monkeypatch) -> set[int]:
    """A token is kept if and only if it wins once its noise is large enough."""
    kept = set()
    for token in range(len(logits)):
        monkeypatch.setattr(
            sampler, "gumbel", lambda keys, step, ids, t=token: torch.where(ids == t, 1e6, 0.0)
        )
        sequences = batch([0], [0], [0], top_k=[top_k], top_p=[top_p])
        winner = choose(logits[None], sequences, torch.tensor([temperature]), torch.tensor([0]), 0)
        if winner.item() == token:
            kept.add(token)
    return kept


def near_the_edge(logits, temperature, top_k, top_p) -> bool:
    """Whether some cumulated probability lands within rounding of p."""
    scores = hugging_face(logits, temperature, top_k, 1.0).double()
    cumulated = scores.softmax(-1).sort(descending=True).values.cumsum(-1)
    return bool((cumulated - top_p).abs().min() < 1e-5)


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    logits=st.lists(st.integers(-12, 12), min_size=2, max_size=24),
    spread=st.sampled_from([0.25, 1.0, 1.7]),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 1.9]),
    top_k=st.integers(0, 26),
    top_p=st.sampled_from([0.05, 0.3, 0.6, 0.9, 0.999, 1.0]),
    candidates=st.sampled_from([(2, 5), (5,), (512,)]),
)
def test_kept_tokens_are_those_of_hugging_faces_warpers(
    logits, spread, temperature, top_k, top_p, candidates
):
    """Integer logits, so that ties abound; few candidates, so that the full sort is needed too."""
    scores = torch.tensor(logits, dtype=torch.float32) * spread
    expected = set(hugging_face(scores, temperature, top_k, top_p).isfinite().nonzero().flatten().tolist())
    if top_p < 1 and near_the_edge(scores, temperature, top_k, top_p):
        return
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sampler, "CANDIDATES", candidates)
        kept = kept_by_choose(scores, temperature, top_k, top_p, monkeypatch)
    values = sorted(scores[list(kept)].tolist())
    assert values == sorted(scores[list(expected)].tolist())
    # torch's own sort keeps the order of ties only up to 16 values: beyond, which of the
    # tokens that tie with the last one kept are dropped is Hugging Face's accident.
    splits_a_tie = (scores == values[0]).sum() > values.count(values[0])
    if len(logits) <= 16 or not splits_a_tie:
        assert kept == expected


@pytest.mark.parametrize("candidates", [(8, 20), (64,), (512,)])
def test_token_is_the_argmax_of_warped_logits_and_noise(candidates, monkeypatch):
    """Real-valued logits, all settings at once, as the engine calls it."""
    monkeypatch.setattr(sampler, "CANDIDATES", candidates)
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, 300, generator=generator) * 3
    temperatures = torch.tensor([0.0, 0.4, 1.0, 1.5])
    keys = torch.tensor([noise_key(1, f"e{n}", 0) for n in range(5)])
    settings = [
        (r, t, u, k, p)
        for r in range(6)
        for t in range(4)
        for u in range(5)
        for k in (0, 1, 7, 500)
        for p in (0.2, 0.75, 1.0)
    ]
    row, temperature, noise, top_k, top_p = map(list, zip(*settings, strict=True))
    sequences = batch(row, temperature, noise, top_k=top_k, top_p=top_p)
    chosen = choose(logits, sequences, temperatures, keys, step=4)
    noise = gumbel(keys, 4, torch.arange(300).expand(5, -1))
    for (r, t, u, k, p), token in zip(settings, chosen.tolist(), strict=True):
        if t == 0:
            assert token == logits[r].argmax()
        else:
            assert token == (hugging_face(logits[r], float(temperatures[t]), k, p) + noise[u]).argmax()


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (6, 1.0), (0, 0.8), (9, 0.7)])
def test_sampled_frequencies_match_the_warped_distribution(top_k, top_p):
    logits = torch.randn(40, generator=torch.Generator().manual_seed(0)) * 2
    draws = 20_000
    keys = torch.tensor([noise_key(7, "poem", n) for n in range(draws)])
    zero = [0] * draws
    sequences = batch(zero, zero, list(range(draws)), top_k=[top_k] * draws, top_p=[top_p] * draws)
    counts = torch.bincount(choose(logits[None], sequences, torch.tensor([0.9]), keys, 2), minlength=40)
    expected = hugging_face(logits, 0.9, top_k, top_p).softmax(-1).double() * draws
    assert counts[expected == 0].sum() == 0
    # χ² wants a few expected draws in each bin: the rare ones are counted as one.
    common = expected >= 5
    rare = expected[~common & (expected > 0)].sum()
    observed = [*counts[common].tolist(), *([counts[~common].sum().item()] if rare > 0 else [])]
    wanted = [*expected[common].tolist(), *([rare.item()] if rare > 0 else [])]
    wanted = [w * sum(observed) / sum(wanted) for w in wanted]
    assert scipy_stats.chisquare(observed, wanted).pvalue > 1e-3


def test_noise_is_gumbel_and_independent_of_its_neighbours():
    keys = torch.tensor([noise_key(0, "a", n) for n in range(200)])
    noise = gumbel(keys, 0, torch.arange(500).expand(200, -1))
    assert scipy_stats.kstest(noise.flatten()[:20_000].numpy(), "gumbel_r").pvalue > 1e-3
    for shifted in (gumbel(keys, 1, torch.arange(500).expand(200, -1)), noise.roll(1, 0), noise.roll(1, 1)):
        correlation = torch.corrcoef(torch.stack([noise.flatten(), shifted.flatten()]))[0, 1]
        assert abs(correlation) < 0.02
    assert noise.isfinite().all()


def test_noise_key_is_the_same_in_every_process_and_differs_between_samples():
    assert noise_key(42, "test-1", 0) == -8870803629149829648
    assert len({noise_key(s, e, n) for s in (1, 2) for e in ("a", "b") for n in (0, 1)}) == 8


def test_the_lowest_temperature_that_a_study_may_ask_for_takes_the_largest_logit():
    """Below it, quotients of large logits are infinite in float32, and the smallest id would win."""
    lowest, logits = KNOB["temperature"].low, torch.zeros(1, 100)
    logits[0, 70], logits[0, 71] = 30_000.0, 29_000.0
    assert not KNOB["temperature"].allows(lowest / 10)
    for knobs in (
        {"top_k": [0], "top_p": [1.0]},
        {"top_k": [9], "top_p": [1.0]},
        {"top_k": [0], "top_p": [0.5]},
    ):
        chosen = choose(logits, batch([0], [0], [0], **knobs), torch.tensor([lowest]), torch.tensor([3]), 0)
        assert chosen.tolist() == [70]


@pytest.mark.parametrize(("capability", "there"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_before_ampere_has_no_kernels(capability, there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_kernels.__wrapped__(torch.device("cuda")) is there
