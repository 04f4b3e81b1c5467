"""Pictures of one colour each, with a long and a short caption that name it."""

import numpy as np
from PIL import Image

from retclip.ports.corpora import CorpusImage

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (30, 50, 220),
    "white": (250, 250, 250),
    "black": (5, 5, 5),
    "yellow": (230, 220, 20),
}


def drawn_pictures(folder, count):
    """Files of 40 x 48 pixels, their colours in turn."""
    images = []
    for number in range(count):
        name, colour = list(COLOURS.items())[number % len(COLOURS)]
        path = folder / f"{number}.png"
        Image.fromarray(np.full((40, 48, 3), colour, np.uint8)).save(path)
        captions = (f"a photo of a {name} wall in the morning", f"a {name} wall")
        images.append(CorpusImage("drawn", str(number), path, "train", captions=captions))
    return images
