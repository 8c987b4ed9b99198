"""One rule a file, each with a ``RULE``; :mod:`flrplan.qc.registry` is their table."""
