"""The demo models of the repository: how they are trained, measured and described. Synthetic cases only."""
