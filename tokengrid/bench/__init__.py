"""The benchmark: ours beside its floor and its peers, in one run, as ratios. Knows nothing of the command line."""
