"""The run folder and the bundle: the only place that knows file names."""
