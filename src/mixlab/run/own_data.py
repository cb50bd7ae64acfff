"""The data that a run was asked to train on, wherever it lies now."""

import os

from mixlab.data.data_set import DataSet
from mixlab.errors import DataError
from mixlab.run.folder import Run


def load(run: Run) -> DataSet:
    """Load it in the splits of the training.

    Raises:
        DataError: where it cannot be used; where it is gone, with the way to say where it lies now.
    """
    experiment = run.experiment if run.has_begun else run.request.experiment
    try:
        return experiment.load_data()
    except DataError:
        path = getattr(experiment.data, "path", "")
        if not run.has_begun or not path or os.path.lexists(path):
            raise
    raise DataError(
        f"the data of {run.folder} is no longer at {path}; if it was moved, say where it lies now: "
        f"mixlab train --resume {run.quoted} --data FOLDER"
    )
