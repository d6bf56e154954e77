"""Submits a transfer."""
