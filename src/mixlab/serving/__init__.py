"""A server of one classifier: answers pictures over HTTP."""
