"""Packed: an adapted model as bytes, so that a fitted classifier can be copied to another process.

The bytes are the files that `save` writes, in a zip archive. So what is pickled is a model folder, and not the inside
of PyTorch.
"""

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from quickstudy.models.adapted import AdaptedModel


def pack_model(model: AdaptedModel) -> bytes:
    """Return the files of a model as bytes."""
    content = BytesIO()
    with TemporaryDirectory() as scratch, ZipFile(content, "w") as archive:
        folder = model.save(Path(scratch) / "model")
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return content.getvalue()


def unpack_model(content: bytes) -> AdaptedModel:
    """Return the model that `pack_model` packed."""
    with TemporaryDirectory() as scratch, ZipFile(BytesIO(content)) as archive:
        archive.extractall(scratch)
        return AdaptedModel.load(scratch)
