"""Learning to rank compiler configurations by runtime."""

__version__ = "0.1.0"
