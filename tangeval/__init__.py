"""Which checkpoint, with which decoding settings, and is the difference real?"""

__version__ = "0.1.0"
