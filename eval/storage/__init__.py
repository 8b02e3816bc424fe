"""Files: read within bounds, written whole, locked, told apart by their digests."""
