"""The Hugging Face Hub: hf://OWNER/NAME is asked for by name, and nothing but the files of a bundle is fetched."""

import re
from pathlib import Path

from mixlab.errors import RunError, UsageError, first_line
from mixlab.run import bundle

ADDRESS = "hf://"
FILES = [bundle.DESCRIPTION, bundle.WEIGHTS, bundle.CARD]


def fetch(address: str) -> Path:
    """Return the bundle folder of hf://OWNER/NAME[@REVISION], fetched into the Hub's cache where it is not there yet.

    Raises:
        UsageError: where that is no such address.
        RunError: where it cannot be fetched, or is no bundle.
    """
    found = re.fullmatch(rf"{ADDRESS}([\w.-]+/[\w.-]+?)(?:@(.+))?", address)
    if found is None:
        raise UsageError(f"{address}: expected {ADDRESS}OWNER/NAME, or {ADDRESS}OWNER/NAME@REVISION")
    try:
        import huggingface_hub
    except ImportError:
        raise RunError(f"{address} needs huggingface_hub: pip install 'mixlab[hub]'") from None
    try:
        folder = Path(huggingface_hub.snapshot_download(found[1], revision=found[2], allow_patterns=FILES))
    except Exception as error:  # of the Hub, of its HTTP library, of the disk: they have no common base
        raise RunError(f"{address} cannot be fetched: {_reason(error, found[1])}") from None
    if not bundle.is_bundle(folder):
        raise RunError(f"{address} holds no bundle of mixlab: it has no {bundle.DESCRIPTION}")
    return folder


def _reason(error: Exception, name: str) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"its owner asks for consent; give it at https://huggingface.co/{name}, then: hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such model, or it is private (hf auth login)"
    if isinstance(error, errors.RevisionNotFoundError):
        return "there is no such revision"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return "the Hub cannot be reached, and the files are not in its cache"
    return first_line(error)
