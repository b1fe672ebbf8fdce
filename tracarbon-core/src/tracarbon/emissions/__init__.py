"""From energy to carbon."""
