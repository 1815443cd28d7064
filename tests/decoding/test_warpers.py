"""The cuts: their order, exact ties, and a new one that is told to two files alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import TopPLogitsWarper

from tangeval.core.knobs import CUTS, Setting
from tangeval.decoding.sampler import Kind, kind_of
from tangeval.decoding.warpers import WARPERS, Candidates, cut

ROOT = Path(__file__).parents[2]


def test_every_cut_has_a_warper_in_the_order_of_the_knobs():
    assert tuple(WARPERS) == CUTS


def test_sequences_are_drawn_by_what_their_setting_cuts():
    kinds = {
        Kind.GREEDY: [{"temperature": 0}, {"temperature": 0, "top_k": 3, "top_p": 0.5}],
        Kind.WHOLE: [{"temperature": 1.0}],
        Kind.CUT: [{"temperature": 1.0, "top_k": 3}, {"temperature": 1.0, "top_k": 3, "top_p": 0.5}],
        Kind.MASS: [{"temperature": 1.0, "top_p": 0.5}],
    }
    for kind, settings in kinds.items():
        assert {kind_of(Setting.of(**setting)) for setting in settings} == {kind}


@pytest.mark.parametrize(("tokens", "top_p"), [(4, 0.5), (8, 0.25), (8, 0.875), (2, 0.5)])
def test_where_the_mass_is_exactly_p_nothing_more_is_kept(tokens, top_p):
    """Equal logits and powers of 2: no rounding, so that < and ≤ can be told apart."""
    row = torch.zeros(1, tokens)
    cumulated = torch.arange(1, tokens + 1)[None].double()
    every = torch.tensor([tokens])
    top = Candidates(row, cumulated, every, cumulated[:, -1], every > 0)
    ((_, left),) = cut(top, {"top_p": torch.tensor([top_p]).double()})
    assert int(left.kept) == tokens * top_p == TopPLogitsWarper(top_p)(None, row).isfinite().sum()


#: What a new cut is: an entry, a function, and its place in the order.
KNOB = """    Knob(
        "min_p", "cut", float, off=0.0, default=0.0, low=1e-6, high=1.0,
        label={"en": "min-p", "zh": "min-p"}, letter="m", hf="min_p", openai="min_p",
    ),
"""
WARPER = '''
def min_p(row: Candidates, value: Tensor) -> Tensor:
    """Those at least ``value`` times as likely as the likeliest: ``MinPLogitsWarper``."""
    ratio = (row.scaled - row.scaled[:, :1]).double().exp()
    return (ratio >= value[:, None]).sum(dim=1)


'''
CHECK = """
import itertools
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper
from transformers import TopPLogitsWarper
import tangeval
from tangeval.core.knobs import CUTS, Setting
from tangeval.decoding import sampler
from tangeval.decoding.decoder import TokenSequence, decode
from tangeval.decoding.noise import gumbel

assert tangeval.__file__.startswith(PLACE), tangeval.__file__
assert CUTS == ("top_k", "top_p", "min_p")
torch.manual_seed(0)
config = LlamaConfig(vocab_size=500, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                     initializer_range=0.3, pad_token_id=0)
model, prompt, length = AutoModelForCausalLM.from_config(config).eval(), [5, 6, 7], 6
settings = [
    Setting.of(temperature=t, top_k=k, top_p=p, min_p=m, max_length=length)
    for t, k, p, m in itertools.product((0.0, 0.7, 1.5), (0, 40), (0.9, 1.0), (0.0, 0.02, 0.3, 1.0))
]
sequences = [TokenSequence(0, setting, key) for setting in settings for key in range(5)]


def plain(sequence):
    text, setting, own = [*prompt], sequence.setting, []
    for step in range(length):
        with torch.inference_mode():
            scores = model(torch.tensor([text])).logits[:, -1]
        if setting.temperature:
            scores = TemperatureLogitsWarper(setting.temperature)(None, scores)
            scores = TopKLogitsWarper(setting.top_k or 500)(None, scores)
            scores = MinPLogitsWarper(setting.min_p)(None, TopPLogitsWarper(setting.top_p)(None, scores))
            scores = scores + gumbel(torch.tensor([sequence.key]), step, torch.arange(500)[None])
        own.append(int(scores.argmax()))
        text.append(own[-1])
    return own


expected = [plain(sequence) for sequence in sequences]
by_min_p = {}
for sequence, tokens in zip(sequences, expected):
    by_min_p.setdefault(sequence.setting.min_p, set()).add(tuple(tokens))
assert len(set(map(frozenset, by_min_p.values()))) == 4, "min_p changes what is written"

for candidates in ((64, 1024, 8192), (2, 20), (500,)):
    sampler.CANDIDATES = candidates
    assert decode(model, [prompt], sequences, eos=[]).tokens == expected, candidates
"""


def test_a_new_cut_is_an_entry_and_a_function(tmp_path):
    """In a copy of the package; decoded with few and many candidates, against transformers' own warpers."""
    shutil.copytree(
        ROOT / "tangeval", tmp_path / "tangeval", ignore=shutil.ignore_patterns("__pycache__", "assets")
    )
    edits = {
        "core/knobs.py": [('    Knob(\n        "max_length"', KNOB + '    Knob(\n        "max_length"')],
        "decoding/warpers.py": [
            ("#: The cuts in the order", WARPER.lstrip("\n") + "#: The cuts in the order"),
            (
                '    "top_p": Warper(top_p, of_mass=True),\n',
                '    "top_p": Warper(top_p, of_mass=True),\n    "min_p": Warper(min_p),\n',
            ),
        ],
    }
    for name, replacements in edits.items():
        file = tmp_path / "tangeval" / name
        text = file.read_text(encoding="utf-8")
        for old, new in replacements:
            assert text.count(old) == 1
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", f"PLACE = {str(tmp_path)!r}\n{CHECK}"],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
