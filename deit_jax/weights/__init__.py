"""Foreign weights: names (one table, used both ways), reading and writing files."""
