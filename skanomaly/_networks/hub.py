"""Pretrained weights on the net: where they land, what is there, and whether a download can work.

Nothing is downloaded here: timm and open_clip do that. But where a download fails, they try again
for most of a minute; so whoever is about to make them download asks here first.
"""

from __future__ import annotations

import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skanomaly._optional import import_optional

TIMEOUT = 5.0  # seconds that a server has to answer


@dataclass(frozen=True)
class WeightFile:
    """Weights of one backbone, as a library asks for them.

    Attributes
    ----------
    name : str
        Of the backbone, for messages.
    repo : str or None
        Repository on the Hugging Face hub.
    files : tuple of str
        Names of the file in that repository, in the order in which they are tried.
    url : str or None
        Address of the file where there is no repository.
    folder : pathlib.Path or None
        Where the file of that address lands.
    """

    name: str
    repo: str | None = None
    files: tuple[str, ...] = ()
    url: str | None = None
    folder: Path | None = None

    def cached(self) -> Path | None:
        """Path of the file if it has been downloaded, else None."""
        if self.repo is None:
            path = self.folder / self.url.rsplit("/", 1)[-1]  # type: ignore[operator, union-attr]
            return path if path.is_file() else None
        hub = _hub(self.name)
        repo, _, revision = self.repo.partition("@")
        for file in self.files:
            path = hub.try_to_load_from_cache(repo, file, revision=revision or None)
            if isinstance(path, str):
                return Path(path)
        return None

    def check_available(self) -> None:
        """Raise at once what a download would end in after many attempts.

        Raises
        ------
        OSError
            When the file is not in the cache, and its server does not answer or downloads are
            forbidden by ``HF_HUB_OFFLINE``.
        """
        if self.cached() is not None:
            return
        try:
            if self.repo is None:
                request = urllib.request.Request(str(self.url), method="HEAD")
                urllib.request.urlopen(request, timeout=TIMEOUT).close()
                return
            hub = _hub(self.name)
            if import_optional("huggingface_hub.constants", "torch", self.name).HF_HUB_OFFLINE:
                raise ConnectionError("HF_HUB_OFFLINE is set")
            repo, _, revision = self.repo.partition("@")
            url = hub.hf_hub_url(repo, self.files[0], revision=revision or None)
            hub.get_hf_file_metadata(url, timeout=TIMEOUT)
        except Exception as exc:
            # An answer, if only that this very name is not there: what follows is the library's.
            response = getattr(exc, "response", None)
            if getattr(response, "status_code", getattr(exc, "code", 500)) < 500:
                return
            raise download_error(self.name, exc, self.place()) from exc

    def place(self) -> Path | None:
        """Folder into which the file is downloaded."""
        return hub_folder() if self.repo is not None else self.folder

    def source(self) -> str | None:
        """Repository or address, for tables."""
        return self.repo if self.repo is not None else self.url


def timm_file(name: str) -> WeightFile | None:
    """The file of a model of timm, a name that timm knows.

    Parameters
    ----------
    name : str
        With or without the tag of its weights.

    Returns
    -------
    WeightFile or None
        None where there is nothing to download.
    """
    timm = import_optional("timm", "torch", f"the backbone {name!r}")
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or cfg.file or not (cfg.hf_hub_id or cfg.url):
        return None
    if cfg.hf_hub_id:
        return WeightFile(
            name, cfg.hf_hub_id, _alternatives(cfg.hf_hub_filename or _TIMM, _TIMM_NAMES)
        )
    return WeightFile(name, url=cfg.url, folder=torch_folder())


def open_clip_file(model_name: str, tag: str) -> WeightFile | None:
    """The file of a model of open_clip.

    Parameters
    ----------
    model_name, tag : str
        Of open_clip, such as ``"ViT-B-16"`` and ``"openai"``.

    Returns
    -------
    WeightFile or None
        None where open_clip has no such weights.
    """
    name = f"{model_name}/{tag}"
    open_clip = import_optional("open_clip", "clip", f"the backbone {name!r}")
    cfg = open_clip.get_pretrained_cfg(model_name, tag)
    if cfg.get("hf_hub"):
        repo, _, file = cfg["hf_hub"].rpartition("/")
        return WeightFile(name, repo, _alternatives(file or _OPEN_CLIP, _OPEN_CLIP_NAMES))
    if cfg.get("url"):
        return WeightFile(name, url=cfg["url"], folder=clip_folder())
    return None


_TIMM, _OPEN_CLIP = "pytorch_model.bin", "open_clip_pytorch_model.bin"
# As safetensors some files have a name of their own, to which both libraries hold.
_TIMM_NAMES = {_TIMM: "model.safetensors", _OPEN_CLIP: "open_clip_model.safetensors"}
_OPEN_CLIP_NAMES = {_OPEN_CLIP: "open_clip_model.safetensors"}


def _alternatives(file: str, names: dict[str, str]) -> tuple[str, ...]:
    """Names under which a file is looked for: first as safetensors."""
    stem, _, suffix = file.rpartition(".")
    if suffix == "safetensors":
        return (file,)
    return names.get(file, f"{stem}.safetensors"), file


def download_error(name: str, exc: Exception, place: Path | None = None) -> OSError:
    """The one message for weights that are not there and cannot be downloaded.

    Parameters
    ----------
    name : str
        Of the backbone.
    exc : Exception
        What went wrong.
    place : pathlib.Path, optional
        Folder in which they would be; None for the hub's cache.

    Returns
    -------
    OSError
    """
    reason = str(exc).splitlines()[0] if str(exc) else repr(exc)
    moved = {hub_folder(): " (HF_HOME moves it)", torch_folder(): " (TORCH_HOME moves it)"}
    place = hub_folder() if place is None else place
    return OSError(
        f"the pretrained weights of {name} could not be downloaded ({type(exc).__name__}: "
        f"{reason}). Connect once to download them, as `skanomaly weights fetch` does ahead of "
        f"time, into {place}{moved.get(place, '')}; or pass the path of a local file as weights="
    )


def hub_folder() -> Path:
    """Cache of the Hugging Face hub, into which timm and open_clip download."""
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME") or _cache_home() / "huggingface"
    return Path(cache or Path(home, "hub")).expanduser()


def torch_folder() -> Path:
    """Cache of torch.hub, for weights that torchvision or timm load from an address."""
    home = os.environ.get("TORCH_HOME") or _cache_home() / "torch"
    return Path(home, "hub", "checkpoints").expanduser()


def clip_folder() -> Path:
    """Where open_clip puts weights that are on no hub."""
    return Path("~/.cache/clip").expanduser()


def downloaded() -> list[tuple[str, int, Path]]:
    """What the three caches hold.

    Returns
    -------
    list of tuple of (str, int, pathlib.Path)
        Name, bytes and place of each repository of weights and of each file.
    """
    found = _hub_repositories()
    for place in (torch_folder(), clip_folder()):
        for path in sorted(place.glob("*")):
            if path.is_file():
                found.append((path.name, path.stat().st_size, path))
    return found


def _hub_repositories() -> list[tuple[str, int, Path]]:
    if not hub_folder().is_dir():
        return []
    try:
        hub = _hub("a list of weights")
    except ImportError:  # without the library that fills the folder, nothing in it is in use
        return []
    return sorted(
        (repository.repo_id, repository.size_on_disk, repository.repo_path)
        for repository in hub.scan_cache_dir(hub_folder()).repos
        if repository.repo_type == "model"
    )


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _hub(user: str) -> Any:
    return import_optional("huggingface_hub", "torch", f"downloading {user}")
