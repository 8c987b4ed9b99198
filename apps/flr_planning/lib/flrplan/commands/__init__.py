"""One file per command of ``flrplan``; each has ``add_parser`` and ``run``."""
