"""Sensors, and the energy that they read."""
