"""Models from the Hugging Face hub, and why one cannot be had."""

from pathlib import Path

from artsel_ray.errors import InputError, one_line
from artsel_ray.models.files import PATTERNS
from artsel_ray.packages import is_disk_full

_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def download(name: str, patterns: list[str] = PATTERNS) -> Path:
    """Returns the folder of a hub model, downloaded if it is not in the hub's own cache.

    Args:
        patterns: names of the files to download.

    Raises:
        InputError: if the hub has no such model, refuses or does not answer, or its cache cannot be written.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except HFValidationError:
        reason = "there is no such folder, and a hub's name looks like owner/name; check it"
    except Exception as error:  # noqa: BLE001  # its HTTP client has exceptions of its own
        reason = _reason(name, error)
    raise InputError(f"model {name!r} is neither 'smollm2', nor a folder, nor available from the hub: {reason}")


def _reason(name: str, error: Exception) -> str:
    """Returns why a download failed and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # it hides what the hub said
    hub, status = constants.ENDPOINT, error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return f"it is gated; accept its license at {hub}/{name}, then {_LOGIN}"
    if isinstance(error, RepositoryNotFoundError):
        return f"{hub} has no such model, or it is private; check the name, and for a private one {_LOGIN}"
    if status in (401, 403):
        return (
            f"{hub} refuses access ({status}); accept the model's license at {hub}/{name} if it has one, then {_LOGIN}"
        )
    if status is not None:
        return f"{hub} answers {status}; try again later"
    if isinstance(error, LocalEntryNotFoundError) or constants.HF_HUB_OFFLINE:
        return f"HF_HUB_OFFLINE is set, and it is not complete in {constants.HF_HUB_CACHE}; download it there first"
    is_local = isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)
    if is_local or is_disk_full(error):  # its downloads in parts are another library's
        return f"cannot write to the hub's cache: {one_line(error)}; set HF_HOME to a folder that can be written"
    return (
        f"{hub} does not answer ({type(error).__name__}); check the network and HF_ENDPOINT, or download it where "
        "there is one and give the folder"
    )
