"""How fast a model is, beside the ways in which people run it today."""
