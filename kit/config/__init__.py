"""Seam only; the implementation grows here."""
