"""A run's folder: what is asked, what was answered, and what came of it."""
