"""Hub: sends a folder to a repository of models on the Hugging Face Hub.

The only place that writes to a server. The token is the one that `hf auth login` saved, or `HF_TOKEN`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from quickstudy.errors import RunError

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_REFUSED = (401, 403)


def check_repository(repository: str) -> None:
    """Raise `RunError` unless this can be the id of a repository."""
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise RunError(f"{repository!r} is no id of a repository", fix="Write it like your-name/complaints.")


def send(folder: Path, repository: str, message: str, *, private: bool) -> str:
    """Send a folder, and return the address of the repository, which is made if it is not there.

    Args:
        folder: What is sent, as it is.
        repository: The id, `user/name`.
        message: What the commit is called.
        private: Make the repository visible to its owner alone; one that is there stays as it is.

    Raises:
        RunError: The Hub is out of reach or switched off, or it refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _plain_errors(repository):
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return str(address)


@contextmanager
def _plain_errors(repository: str) -> Iterator[None]:
    """Turn the errors of the Hub's library into ours."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    # Its errors derive from those of the HTTP library that it uses, whichever that is, and from OSError.
    of_network = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
    look = "--dry-run shows what would be sent."
    try:
        yield
    except OfflineModeIsEnabled as error:
        fix = f"Unset HF_HUB_OFFLINE. {look}"
        raise RunError("the Hugging Face Hub is switched off by HF_HUB_OFFLINE", fix=fix) from error
    except LocalTokenNotFoundError as error:
        raise _not_allowed(repository) from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in _REFUSED:
            raise _not_allowed(repository) from error
        reason = str(error).splitlines()[0]
        raise RunError(f"the Hub refused: {reason}", where=repository, fix="Mend it, and push again.") from error
    except of_network as error:
        fix = f"Check the network, HF_ENDPOINT and proxies, and push again. {look}"
        raise RunError(f"the Hugging Face Hub is out of reach ({error})", fix=fix) from error


def _not_allowed(repository: str) -> RunError:
    owner = repository.partition("/")[0]
    fix = f"Log in with hf auth login, and a token that may write to {owner}."
    return RunError("the Hub does not let you write there", where=repository, fix=fix)
