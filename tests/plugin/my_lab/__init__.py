"""A laboratory's own benchmark and back end."""
