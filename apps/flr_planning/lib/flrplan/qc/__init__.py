"""Label rules that return findings as data; the caller decides what to show."""
