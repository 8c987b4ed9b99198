"""One training of one fold, and its publication."""
