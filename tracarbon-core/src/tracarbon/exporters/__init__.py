"""Exporters, and the metrics that they export."""
