"""A representative part of `make matrix`: each model type has the outcome that docs/reliability.md says."""

from pathlib import Path

import pytest

from tests.matrix import TABLE
from tests.support.architectures import outcome

#: Of each way and refusal some, the fast ones.
KINDS = (
    "llama", "mistral", "qwen2", "qwen3_moe", "gemma3_text", "gemma4_text", "gpt2", "opt", "bloom", "mixtral", "jetmoe",
    "deepseek_v3", "jamba", "lfm2", "gpt_oss", "bart", "git", "camembert",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_type_has_the_outcome_of_the_table(kind):
    rows = (Path(__file__).parents[2] / TABLE).read_text("utf-8").splitlines()
    found = outcome(kind)
    assert found.row() in rows
    assert found.result == "equal" or found.result.startswith("refused")
