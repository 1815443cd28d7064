"""How likely a checkpoint finds the references: measured by an engine, whatever the setting.

In: nothing; ``engines`` measures it. Out: the metric's name and labels.
"""

from tangeval.metrics.base import Metric

_LABEL = {"en": "reference NLL (nats per character)", "zh": "原作的負對數似然"}
REFERENCE_NLL = Metric("reference_nll", _LABEL, better="low", level="reference", headline=True)
