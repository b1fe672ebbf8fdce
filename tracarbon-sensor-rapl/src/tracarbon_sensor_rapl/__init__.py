"""rapl."""
