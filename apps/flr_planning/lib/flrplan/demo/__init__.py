"""The demo models of the repository: how they are trained, measured and described. Synthetic cases only."""

REAL_FORM = "NAME=CT,LIVER[:VALUE]"
"""How ``flrplan demo-models --real`` takes a CT; VALUE: the liver's in LIVER, without: any but 0 of a binary mask."""
