"""A run's folder: its specification, requests, answers and scores."""
