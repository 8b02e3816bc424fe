"""How scores are laid out: one module for each form."""
