"""Bulk scoring with vLLM on Ray Data."""
