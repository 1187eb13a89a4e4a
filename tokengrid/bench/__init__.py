"""The benchmark: everything side by side in one run, on the embedded store, as ratios."""
