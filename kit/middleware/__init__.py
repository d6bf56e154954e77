"""Middleware: the parts of a call that every service wants and no service should write.

A middleware takes a handler and gives a handler; the first listed in a chain is the outermost.
"""

from kit.transport import Handler, Middleware, chain

__all__ = ["Handler", "Middleware", "chain"]
