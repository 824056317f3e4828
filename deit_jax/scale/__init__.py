"""Many processes as one run: who is in it, how they meet, stop together and end together."""
