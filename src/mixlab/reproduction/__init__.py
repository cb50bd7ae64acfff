"""The origin's experiments, each one command, beside the published figures."""
