"""Put the trained tiny suite into the package, in float16.

Run: python -m scripts.train_tiny.pack --fcclip RUN/model.safetensors --detector RUN/export --masker RUN/export
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

import retclip

PLACE = Path(retclip.__file__).parent / "presets" / "tiny"


def pack(source: Path, target: Path) -> None:
    """Write the tensors of a safetensors file in half precision."""
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in load_file(source).items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, target, metadata={"format": "pt"})
    target.chmod(0o644)


def pack_folder(source: Path, target: Path) -> None:
    """The same for a folder of transformers, with its small files."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.suffix == ".safetensors":
            pack(path, target / path.name)
        else:
            shutil.copyfile(path, target / path.name)


def main() -> None:
    """Pack what was named and print the size of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fcclip", type=Path)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--masker", type=Path)
    given = parser.parse_args()
    if given.fcclip:
        pack(given.fcclip, PLACE / "fcclip.safetensors")
    for name in ("detector", "masker"):
        if folder := getattr(given, name):
            pack_folder(folder, PLACE / name)
    sizes = {path.relative_to(PLACE): path.stat().st_size for path in sorted(PLACE.rglob("*")) if path.is_file()}
    for path, size in sizes.items():
        print(f"{size:>10,}  {path}")
    print(f"{sum(sizes.values()):>10,}  in all")


if __name__ == "__main__":
    main()
