"""What a GPU is asked in the minutes that there is one; `python -m benchmarks.gpu_slot` asks."""
