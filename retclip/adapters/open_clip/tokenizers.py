"""The tokenizer that belongs to a CLIP: CLIP's own byte-pair encoding, or the files of a folder."""

from __future__ import annotations

import hashlib
from typing import Any

from open_clip import SimpleTokenizer, get_tokenizer

from retclip.adapters.open_clip.prompts import CLIP_TOKENIZER, Tokenizer
from retclip.adapters.open_clip.releases import Release
from retclip.core.errors import ModelError, first_line, translated

# What a configuration may ask of a tokenizer; other arguments of the libraries name files or run code.
_HARMLESS = frozenset({"clean", "strip_sep_token"})
_FILES = (".json", ".txt", ".model")


def load_tokenizer(release: Release) -> tuple[Tokenizer, str]:
    """The tokenizer, and what tells it from others.

    Raises:
        ModelError: E222 its files are missing or unusable, or it has more tokens than the text tower.
    """
    text = release.config["text_cfg"]
    arguments = text.get("tokenizer_kwargs", {})
    if not isinstance(arguments, dict):
        raise _unusable(release, "text_cfg.tokenizer_kwargs is no table.")
    if forbidden := sorted(set(arguments) - _HARMLESS):
        raise _unusable(release, f"text_cfg.tokenizer_kwargs has {', '.join(forbidden)}.")
    own_files = bool(text.get("hf_tokenizer_name"))
    if own_files and release.folder is None:
        raise _unusable(release, f"It needs the files of '{text['hf_tokenizer_name']}'.")
    # Tokenizer libraries raise any type for files they cannot read.
    with translated(lambda error: _unusable(release, first_line(error))):
        tokenizer: Any = (
            get_tokenizer(f"local-dir:{release.folder}", trust_remote_code=False)
            if own_files
            else SimpleTokenizer(context_length=text.get("context_length", 77), **arguments)
        )
    tokens = len(tokenizer.tokenizer) if own_files else tokenizer.vocab_size
    if tokens > text.get("vocab_size", tokens):
        raise _unusable(release, f"It has {tokens:,} tokens, the text tower {text['vocab_size']:,}.")
    return tokenizer, _files_digest(release) if own_files else CLIP_TOKENIZER


def _files_digest(release: Release) -> str:
    assert release.folder is not None
    digest = hashlib.sha256()
    for path in sorted(release.folder.iterdir()):
        if path.suffix in _FILES and path.is_file():
            digest.update(f"{path.name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _unusable(release: Release, why: str) -> ModelError:
    return ModelError(
        "E222",
        f"The tokenizer of '{release.model}' is not usable.",
        why=why,
        fix="Set encoder.weights to a folder with open_clip_config.json, weights and tokenizer files.",
    )
