"""How a model family is asked: its prompts, and what its replies mean."""
