"""Middleware: the parts of a call that every service wants and no service should write.

A middleware takes a handler and gives a handler; the first listed in a chain is the outermost. Each
is a module of its own, so that a service imports, and installs, what it uses. The list and the
order: docs/kit/middleware.md.
"""

from kit.transport import Handler, Middleware, chain

__all__ = ["Handler", "Middleware", "chain"]
