"""What a user asks with on the command line, a region of a picture or words, as a key vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from retclip.assembly import choose_preset, make_encoder, make_text_tower
from retclip.core.errors import FeatureSpaceMismatch, InputError, ModelError
from retclip.core.identity import FeatureSpace
from retclip.core.images import read_annotation, read_picture
from retclip.ports.encoders import embed_regions
from retclip.shards import Database


def region_key(
    database: Database, image: Path, box: str | None, mask: Path | None, device: str
) -> npt.NDArray[np.float32]:
    """(1, D) unit vector of a region, by the database's own preset; InputError for a region outside the picture."""
    picture = read_picture(image)
    region = _region(picture.size, box, mask)
    encoder = make_encoder(choose_preset(None, database), device)
    _require_space(database, encoder.space)
    features = encoder.encode_images([picture.pixels])[0]
    return embed_regions(encoder, features, torch.from_numpy(region)[None]).cpu().numpy()


def text_key(database: Database, words: str, device: str) -> npt.NDArray[np.float32]:
    """(1, D) unit vector of words, by the text tower of the database's own preset; ModelError E209 without one."""
    tower = make_text_tower(choose_preset(None, database), device)
    if tower is None:
        raise ModelError(
            "E209",
            f"Encoder {database.space.encoder} cannot read text.",
            why="It has no text tower.",
            fix="Ask with --image.",
        )
    _require_space(database, tower.space)
    return tower.encode_names([words]).cpu().numpy()


def _require_space(database: Database, space: FeatureSpace) -> None:
    if space != database.space:
        raise FeatureSpaceMismatch(
            database.name, database.space.encoder, space.encoder, database.space.differences(space)
        )


def _region(size: tuple[int, int], box: str | None, mask: Path | None) -> npt.NDArray[np.bool_]:
    if mask is not None:
        values = read_annotation(mask)
        drawn: npt.NDArray[np.bool_] = (values != 0).any(axis=2) if values.ndim == 3 else values != 0
        if drawn.shape != size or not drawn.any():
            shape = f"{drawn.shape[0]} x {drawn.shape[1]} with {int(drawn.sum())} pixels set"
            raise InputError(
                "E125",
                f"{mask} is no region of the picture.",
                why=f"It is {shape}; the picture is {size[0]} x {size[1]}.",
                fix="Save a mask of the picture's size.",
            )
        return drawn
    region = np.zeros(size, dtype=bool)
    if box is None:
        region[:] = True
        return region
    try:
        x0, y0, x1, y1 = (round(float(word)) for word in box.split(","))
    except (ValueError, OverflowError) as error:
        raise InputError(
            "E125", f"--box '{box}' is not x0,y0,x1,y1.", why=str(error), fix="Give four numbers in pixels."
        ) from error
    region[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
    if not region.any():
        raise InputError(
            "E125",
            f"--box {box} lies outside the picture.",
            why=f"The picture is {size[1]} wide and {size[0]} high.",
            fix="Give a box inside it.",
        )
    return region
