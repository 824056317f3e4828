"""Every configuration key with its default, and the checks that run before anything compiles."""
