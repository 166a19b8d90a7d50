"""Measurements and their checks, run in the checkout: `python -m benchmarks.latency`; README.md lists all."""
