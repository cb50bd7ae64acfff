"""Optimisers, schedules and the average of weights."""
