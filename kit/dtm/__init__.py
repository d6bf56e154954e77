"""Distributed transactions: a coordinator and its client, wire-compatible with dtm-labs/dtm."""
