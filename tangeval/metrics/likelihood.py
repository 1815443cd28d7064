"""How likely a checkpoint finds the references: measured by an engine, whatever the setting.

In: nothing; ``engines`` measures it. Out: the metrics' names and labels.
"""

from tangeval.metrics.base import Metric

_LABEL = {"en": "reference NLL (nats per character)", "zh": "原作的負對數似然"}
REFERENCE_NLL = Metric("reference_nll", _LABEL, better="low", level="reference", headline=True)
_LABEL = {"en": "reference NLL (nats per token)", "zh": "原作每詞元的負對數似然"}
#: The logarithm of the perplexity per token, which models of one tokenizer alone are compared by.
TOKEN_NLL = Metric("token_nll", _LABEL, better="low", level="reference", counts=("nll_sum", "tokens"))
