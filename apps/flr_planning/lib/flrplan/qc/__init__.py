"""Findings about a mask as data, for the caller to show: whether the liver is wholly in view (:mod:`liver_in_view`). Never imports torch."""
