"""The Hugging Face hub: what its cache holds, whether it can be reached, and downloads of single files.

Only the files that a card lists are fetched, never a whole repository. The client keeps files that are complete and
goes on within a file when the connection breaks; a killed download starts that one file again.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from retclip.core.errors import InputError, ModelError, ResourceError, RetclipError, first_line
from retclip.presets.model_cards import ModelCard, NeededModel, model_cards

_OFFLINE = ("RETCLIP_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_PROBE_SECONDS = 1.5


def cached_file(repository: str, name: str) -> Path | None:
    """A file of the newest downloaded version of a repository, if the cache (`HF_HOME`) has it."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def offline_reason() -> str:
    """Why the hub must not or cannot be asked; empty when it can. Takes at most a second and a half."""
    from huggingface_hub import constants

    for variable in _OFFLINE:
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"offline mode is on ({variable})"
    return "" if _answers(constants.ENDPOINT) else f"{constants.ENDPOINT} does not answer"


def _answers(endpoint: str) -> bool:
    """Whether somebody listens at the hub's address, or at the proxy that leads there."""
    address = urllib.parse.urlsplit(endpoint)
    proxy = urllib.request.getproxies().get(address.scheme)
    if proxy and not urllib.request.proxy_bypass(address.hostname or ""):
        address = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    heard: list[bool] = []

    def knock() -> None:
        try:
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname or "", port), timeout=_PROBE_SECONDS).close()
        except (OSError, ValueError):  # ValueError: a port that is none
            return
        heard.append(True)

    # A thread of its own: looking up a name has no time limit, and without a network it can take half a minute.
    probe = threading.Thread(target=knock, daemon=True)
    probe.start()
    probe.join(_PROBE_SECONDS)
    return bool(heard)


def download(card: ModelCard, folder: Path | None = None, *, quiet: bool = False) -> None:
    """Bring the files of a card into the hub's cache, or into a folder of their own. What is there already stays.

    Raises:
        ModelError: E201 the connection failed, E203 the hub refuses, E223 the repository or a needed file is not there.
        InputError: E131 the folder cannot be written.
        ResourceError: E401 the disk is full.
    """
    from huggingface_hub.utils import disable_progress_bars

    if quiet:
        disable_progress_bars()
    # Small files first: whether the hub refuses shows before the weights, and weights alone never look complete.
    for names in card.files:
        _fetch_one_of(card, names.split("|"), folder)
    for name in card.extras:
        _fetch(card, name, folder)
    _fetch_one_of(card, card.weights, folder)


def _fetch_one_of(card: ModelCard, names: Sequence[str], folder: Path | None) -> None:
    if not any(_fetch(card, name, folder) for name in names):
        raise ModelError(
            "E223",
            f"The hub's repository '{card.repository}' has no {' or '.join(names)}.",
            why="It holds another kind of network, or keeps its weights under another name.",
            fix="Correct the model in the preset, or set its weights to a file or folder of your own.",
        )


def _fetch(card: ModelCard, name: str, folder: Path | None) -> bool:
    """Bring one file; False when the repository has none of that name."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        hf_hub_download(card.repository, name, local_dir=folder)
    except MemoryError:
        raise
    # The client and its transport raise many types; none of their traces is of use to a user.
    except Exception as error:
        if isinstance(error, EntryNotFoundError) and _status(error) == 404:
            return False
        raise _failure(error, card, folder) from error
    return True


def _failure(error: Exception, card: ModelCard, folder: Path | None) -> RetclipError:
    from huggingface_hub.errors import GatedRepoError

    status, repository = _status(error), card.repository
    if status in (401, 403):
        return _refused(card, status, gated=status == 403 or isinstance(error, GatedRepoError))
    if status == 404 or (isinstance(error, ValueError) and status is None):
        return ModelError(
            "E223",
            f"The hub has no repository '{repository}'.",
            why=first_line(error),
            fix="Correct the model in the preset; `retclip models list --licenses` names known ones.",
        )
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(
            "E401", f"The disk is full; '{repository}' needs {card.megabytes} MB.", why=first_line(error),
            fix="Make room and run the same command: complete files are kept.",
        )  # fmt: skip
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        place = folder or "the hub's cache"
        return InputError("E131", f"Cannot write into {place}.", why=first_line(error), fix="Choose another --dir.")
    return ModelError(
        "E201",
        f"'{repository}' is not on this machine, and its download failed.",
        why=first_line(error),
        fix="Try again: complete files are kept. Behind a proxy set HTTPS_PROXY, with a mirror HF_ENDPOINT.",
    )


def _refused(card: ModelCard, status: int, *, gated: bool) -> ModelError:
    peers = [other for other in model_cards() if other.kind == card.kind and not other.gated]
    others = [other.name for other in peers if other.repository != card.repository]
    what = "is gated" if gated or card.gated else "does not exist, or is private or gated"
    return ModelError(
        "E203",
        f"The hub refuses '{card.repository}': it {what}, and your token has no access.",
        why=f"It answered {status}.",
        fix=f"Ask for access on its page and log in with `hf auth login`, or use one of {', '.join(others[:3])}.",
    )


def _status(error: BaseException) -> int | None:
    """HTTP status of the answer at the root of an error; the client wraps some answers twice."""
    for cause in _causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def with_repository(needed: NeededModel) -> NeededModel:
    """The same network with its repository, for those that only their library knows. Raises ModelError E208.

    This imports the library; networks of the catalogue do without.
    """
    card = needed.card
    if not needed.from_hub or card.repository or card.library not in ("timm", "open_clip"):
        return needed
    place = _timm_place(card.model) if card.library == "timm" else _open_clip_place(card.model, card.pretrained)
    repository, _, file = place.rpartition("/")
    weights = (str(Path(file).with_suffix(".safetensors")), file) if file else card.weights
    return replace(needed, card=replace(card, repository=repository, weights=weights))


def _timm_place(model: str) -> str:
    """`owner/repository/` or `owner/repository/file`; `` for networks without weights on the hub."""
    import timm

    from retclip.adapters.timm_backbone import check_model_name

    check_model_name(model)
    release = timm.get_pretrained_cfg(model)
    return f"{release.hf_hub_id}/{release.hf_hub_filename or ''}" if release is not None and release.hf_hub_id else ""


def _open_clip_place(model: str, pretrained: str) -> str:
    """As `_timm_place`."""
    from open_clip import list_pretrained_tags_by_model
    from open_clip.pretrained import get_pretrained_cfg

    release = get_pretrained_cfg(model, pretrained)
    if not release:
        raise ModelError(
            "E208",
            f"open_clip knows no release '{pretrained}' of '{model}'.",
            why=f"It knows: {', '.join(list_pretrained_tags_by_model(model)) or 'no such model'}.",
            fix="Correct encoder.model or encoder.pretrained in the preset.",
        )
    return str(release.get("hf_hub", ""))
