"""Image processing with CC layers (arXiv 2006.11120, Sec. 5): one network that enlarges a picture by any factor.

cubic.py          Keys' kernel, a CC layer whose kernel is known
axes.py           which outputs of an axis are made of which inputs: whole pictures and tiles of them
model.py          `CCUpscaler`: plain convolutions, then a CC layer of any factor
tiles.py          pictures of any size in bounded memory
ensembles.py      the same picture along several ways, and their mean or median
pixels.py         colour and transparency
picture_files.py  a file into another
folder.py         the checkpoint on disk
pairs.py, recipe.py, training.py   training pairs, the numbers of a run, the run
evaluation.py     PSNR against bicubic
neighbours.py     factors held out beside the nearest that were trained
"""

from ccnet.upscaling.cubic import bicubic, keys_kernel
from ccnet.upscaling.model import CCUpscaler

__all__ = ["CCUpscaler", "bicubic", "keys_kernel"]
