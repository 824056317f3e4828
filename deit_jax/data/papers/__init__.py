"""The data sets of the papers, as their authors publish them."""
