"""Logits → tokens: all sequences of a batch in one shared decode."""
