"""fedd makes devices into a federation and runs decentralised algorithms on it."""

__version__ = "0.1.0"
