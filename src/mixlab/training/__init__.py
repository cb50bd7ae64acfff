"""Training: `train.train` starts, resumes or returns a run."""
