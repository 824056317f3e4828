"""Many runs of one family of configurations: planning, running and collecting them."""
