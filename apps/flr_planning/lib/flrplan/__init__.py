"""flrplan: from a CT to the future liver remnant (FLR) in colorectal liver metastases (CRLM)."""

__version__ = "0.1.0"
