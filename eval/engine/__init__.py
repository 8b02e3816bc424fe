"""Requests in, predictions out."""
