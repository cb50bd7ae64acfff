"""One architecture a file; `catalogue` is their union."""
