"""Boxship: the whole container stack, each layer speaking the real wire protocol."""

__version__ = "0.1.0"
