"""One file per family of experiments; `configs/family.py:what` says which one is meant."""
