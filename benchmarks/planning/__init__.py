"""What a compiler plans for a device that need not be here; `python -m benchmarks.plan`."""
