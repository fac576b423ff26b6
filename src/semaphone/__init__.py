"""Semaphone: speech over links that are too thin and too lossy for ordinary codecs."""

__version__ = "0.1.0"
