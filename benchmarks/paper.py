"""What a study of 20 checkpoints × 1,000 settings × 200 prompts × 32 samples takes, from measured steps.

    python -m benchmarks.paper

Every number that goes in is named with where it was measured; docs/scale.md explains and prints
what comes out. Needs nothing.
"""

import math

CHECKPOINTS, SETTINGS, PROMPTS, SAMPLES = 20, 1000, 200, 32

# A row's step: one token of one row of the batch. Breeze's shape, one H100 (docs/performance.md).
SECONDS_A_ROW_STEP = 26.4 / 709_666
# Row-steps of 60 settings for a prompt and a sample: Gemma 270M fine-tuned (docs/performance.md), whose
# outputs are 19.8 tokens; and random weights, 127 tokens and hardly a row shared.
TUNED, RANDOM = 64_937 / (15 * 8), 709_666 / (15 * 8)
# 16 times the settings run 5.5 times the rows, tang-mini (docs/performance.md).
GROWTH = math.log(5.5) / math.log(16)
# 70B: ten times the weights; and what is lost by splitting each layer over four GPUs, assumed.
LARGER, KEPT = 70 / 7, 0.8
# A batch of Breeze's shape (docs/performance.md: 7,200 outputs in three batches).
SEQUENCES = 2400
# Bytes: a batch of one poem in plan.json (as written: 313), an output in a batch file and in
# scores.parquet, a row of summary.csv (benchmarks.scale at ten million).
PLAN, SHARD, SCORE, SUMMARY = 300, 22, 5.8, 770
GPUS = (1, 8, 64)


def main() -> None:
    outputs = CHECKPOINTS * SETTINGS * PROMPTS * SAMPLES
    pairs = CHECKPOINTS * PROMPTS * SAMPLES
    shared = pairs * TUNED * (SETTINGS / 60) ** GROWTH
    apart = pairs * RANDOM * SETTINGS / 60
    print(
        f"{outputs:,} outputs; row-steps: {shared:,.0f} as fine-tuned models share, {apart:,.0f} if none is shared"
    )
    for name, row_steps in (("shared", shared), ("apart", apart)):
        for model, factor in (("7B", 1.0), ("70B", LARGER / KEPT)):
            hours = row_steps * SECONDS_A_ROW_STEP * factor / 3600
            print(f"{model} {name}: " + ", ".join(f"{hours / n:,.2f} h on {n} GPUs" for n in GPUS))
    batches = CHECKPOINTS * PROMPTS * math.ceil(SETTINGS * SAMPLES / SEQUENCES)
    print(f"{batches:,} batches; plan.json {batches * PLAN / 1e6:.0f} MB")
    print(
        f"batch files {outputs * SHARD / 1e9:.1f} GB, scores.parquet {outputs * SCORE / 1e9:.1f} GB, ", end=""
    )
    print(f"summary.csv {CHECKPOINTS * SETTINGS * SUMMARY / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
