"""Commands that measure speed and memory: ``python -m benchmarks.NAME`` from the checkout."""
