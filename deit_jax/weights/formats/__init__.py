"""Files of weights, read without executing anything, and written whole or not at all."""
