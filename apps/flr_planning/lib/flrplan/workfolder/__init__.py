"""Labelled cases on disk: the work folder, its cases, its split, and the records of what was made of what."""
