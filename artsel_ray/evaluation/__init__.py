"""Metrics with intervals. Needs numpy only."""
