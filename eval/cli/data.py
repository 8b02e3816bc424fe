"""The data commands (being written)."""

import typer

app = typer.Typer()


@app.command("list")
def list_data() -> None:
    """Show tasks and their data."""
