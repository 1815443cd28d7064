import tangeval as tangeval  # before any library: it switches telemetry off
