"""One example token by token: what the model offers, what the knobs leave, what the noise picks."""
