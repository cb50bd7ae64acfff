"""The page: what a browser needs to ask a network about pictures, of a server or in the browser itself."""

from importlib import resources

# What the page may load, which index.html says too; as a header, "; frame-ancestors 'none'" can be added.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; worker-src 'self' blob:; media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)


def files() -> dict[str, bytes]:
    """Return the page's files by their names, all in one folder; what it asks for beside them is model.json."""
    found = resources.files(__name__).iterdir()
    return {
        file.name: file.read_bytes() for file in found if file.is_file() and not file.name.endswith((".py", ".pyc"))
    }
