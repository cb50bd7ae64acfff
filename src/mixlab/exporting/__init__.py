"""Exported files: written, and compared with the bundle that they came from before anybody may use them."""
