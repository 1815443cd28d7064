"""Packed texts against the same texts padded and, one by one, against Hugging Face's own loss."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, Gemma3TextConfig, LlamaConfig, MistralConfig

from finetune import log
from finetune.data import Layout, collate, summed_loss
from finetune.packing import IGNORED, keep_apart, pack
from tangeval.core.errors import TangevalError

SIZE = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 16, "initializer_range": 0.3, "pad_token_id": None,
}  # fmt: skip
WINDOW = 12  # tokens: shorter than what the texts begin with, and than their rest
MODELS = {
    "llama": LlamaConfig(**SIZE),
    "gemma3": Gemma3TextConfig(
        **SIZE, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"] * 2
    ),
    "mistral": MistralConfig(**SIZE, sliding_window=WINDOW),
}


def texts(shared: int = 20, supervised_from: int = 25) -> list[dict[str, list[int]]]:
    """Four texts of unlike lengths that begin with the same tokens."""
    made = torch.Generator().manual_seed(0)
    ids = [torch.randint(1, 96, (shared + n,), generator=made).tolist() for n in (9, 30, 17, 22)]
    ids = [ids[0][:shared] + each[shared:] for each in ids]
    return [
        {"input_ids": each, "labels": [IGNORED] * supervised_from + each[supervised_from:]} for each in ids
    ]


def learnt(
    model: torch.nn.Module, rows: list[dict[str, list[int]]], padding: str
) -> tuple[float, torch.Tensor]:
    """The summed loss and all its gradients."""
    batch = keep_apart(collate(rows, Layout(padding=padding)), model.config)
    labels = batch.pop("labels")
    model.zero_grad()
    loss = summed_loss(model(**batch, use_cache=False).logits, labels)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("shared", "supervised_from"), [(20, 25), (0, 5), (20, 0), (20, 20), (20, 3)])
def test_packed_texts_teach_what_padded_ones_do(name, attention, shared, supervised_from):
    """Also with labels from the first token on, within what is alike, and on the very token that differs."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MODELS[name], attn_implementation=attention)
    rows = texts(shared, supervised_from)
    loss, gradient = learnt(model, rows, "packed")
    padded, expected = learnt(model, rows, "longest")
    assert loss == pytest.approx(padded, rel=1e-6)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-5
    with torch.no_grad():
        alone = [{key: torch.tensor([ids]) for key, ids in row.items()} for row in rows]
        counts = [int((row["labels"][:, 1:] != IGNORED).sum()) for row in alone]
        theirs = sum(float(model(**row).loss) * count for row, count in zip(alone, counts, strict=True))
    assert loss == pytest.approx(theirs, rel=1e-5)


def test_a_text_sees_no_token_of_another():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MODELS["gemma3"])
    rows = texts()
    other = rows[1] | {"input_ids": rows[1]["input_ids"][:20] + [7] * 30}
    with torch.no_grad():
        ours, theirs = (
            model(**keep_apart(pack([rows[0], second, *rows[2:]]), model.config)).logits[0]
            for second in (rows[1], other)
        )
    assert torch.equal(ours[:29], theirs[:29])
    assert torch.equal(ours[59:], theirs[59:])
    assert not torch.equal(ours[29:59], theirs[29:59])


def test_what_is_alike_stands_once_and_nothing_is_padded():
    rows = texts()
    packed = pack(rows)
    assert packed["input_ids"].shape == (1, 20 + 9 + 30 + 17 + 22)
    assert packed["position_ids"][0, 18:31].tolist() == [18, 19, *range(20, 29), 20, 21]
    assert int((packed["labels"] != IGNORED).sum()) == sum(len(row["input_ids"]) - 25 for row in rows)


@pytest.mark.parametrize(
    "config", [MODELS["llama"], BloomConfig(vocab_size=96, hidden_size=64, n_layer=2, n_head=4)]
)
def test_a_model_that_does_not_keep_texts_apart_is_refused(config, monkeypatch):
    model = AutoModelForCausalLM.from_config(config).eval()
    if config is MODELS["llama"]:
        log.check_packing(model, texts())
        monkeypatch.setattr(
            log, "keep_apart", lambda batch, config: {k: v for k, v in batch.items() if k != "text"}
        )
    with pytest.raises(TangevalError, match=r"padding: packed: .*set padding: longest"):
        log.check_packing(model, texts())


def test_layers_that_are_no_attention_are_refused():
    config = SimpleNamespace(layer_types=["conv", "full_attention"], _attn_implementation="sdpa")
    config.get_text_config = lambda: config
    with pytest.raises(TangevalError, match="layers of type conv; set padding: longest"):
        keep_apart(pack(texts()), config)
