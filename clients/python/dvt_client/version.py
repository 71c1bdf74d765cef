"""Of the distribution dvt-client."""

__version__ = "0.1.0"
