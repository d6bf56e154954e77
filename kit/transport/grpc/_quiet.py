"""Imported before grpcio: its core prints to stderr whenever a connection ends hard.

The core reads the variable once, when ``grpc`` is imported. A program that imports ``grpc`` before
the kit has to set it itself.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
