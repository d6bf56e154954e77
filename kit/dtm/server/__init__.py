"""The coordinator: it carries out what :mod:`kit.dtm.core` decides.

``engine.py`` runs commands, ``caller.py`` asks branches, ``claims.py`` finds due work,
``api_grpc.py`` translates, ``main.py`` wires.
"""
