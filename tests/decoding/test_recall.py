"""What cuts keep of a given text, against transformers' own warpers."""

import pytest
import torch
from transformers import (
    EtaLogitsWarper,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from tangeval.core.knobs import Setting, warp_name, warps
from tangeval.decoding import recall

SETTINGS = [
    Setting.of(temperature=temperature, top_k=top_k, top_p=top_p, max_length=length)
    for temperature in (0.0, 0.5, 1.3) for top_k in (0, 3) for top_p in (0.4, 0.95, 1.0) for length in (8, 16)
]  # fmt: skip
OTHERS = [Setting.of(temperature=1.3, typical_p=0.5), Setting.of(temperature=0.5, top_k=9, eta_cutoff=0.02)]


def test_settings_that_keep_alike_are_one_and_named_as_they_are_typed():
    names = [warp_name(warp) for warp in warps(SETTINGS)]
    assert len(names) == 1 + 2 * 6
    assert names[:3] == ["temperature=0", "temperature=0.5,top_p=0.4", "temperature=0.5,top_p=0.95"]
    assert warp_name(SETTINGS[-1]) == "temperature=1.3,top_k=3"


@pytest.mark.parametrize("some", [4, 64, 8192])
def test_recall_mass_and_risk_are_those_of_transformers_warpers(monkeypatch, some):
    monkeypatch.setattr(recall, "SOME", some)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn((40, 200), generator=generator)
    tokens = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    found = recall.kept(logits, tokens, warps(SETTINGS + OTHERS))
    for warp in warps(SETTINGS + OTHERS)[1:]:
        chain = LogitsProcessorList([TemperatureLogitsWarper(warp.temperature)])
        whole = chain(None, logits.double()).softmax(-1)
        chain += [TopKLogitsWarper(warp.top_k)] if warp.top_k else []
        chain += [TopPLogitsWarper(warp.top_p)] if warp.top_p < 1 else []
        chain += [TypicalLogitsWarper(warp.typical_p)] if warp.typical_p < 1 else []
        chain += [EtaLogitsWarper(warp.eta_cutoff)] if warp.eta_cutoff else []
        left = chain(None, logits.double())
        stays = ~left.isneginf()
        own = left.softmax(-1).gather(1, tokens[:, None])
        expected = (
            float(stays.gather(1, tokens[:, None]).double().mean()),
            float((whole * stays).sum(-1).mean()),
            float(1 - own.mean()),
        )
        assert found[warp_name(warp)] == pytest.approx(expected, abs=1e-5)
    hit = float((logits.argmax(-1) == tokens).double().mean())
    assert found["temperature=0"] == (hit, 1.0, 1 - hit)
