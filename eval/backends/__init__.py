"""Answers that are not computed here."""
