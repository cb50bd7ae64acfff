"""Measuring trained models, and using them on pictures."""
