"""What the library raises when what it was given cannot be right.

    CcnetError(ValueError)
    ├── SequenceError      a scale sequence that is not valid for the network it is meant for
    ├── CheckpointError    a checkpoint folder that is incomplete, damaged or of another network
    ├── DataError          a data set that is missing, cut short or of another format
    └── PictureError       a picture that cannot be decoded
        ├── PictureFormatError   not a PNG, JPEG or WebP
        └── PictureSizeError     more pixels than allowed

Every message says what was given, what is allowed and how to mend it.
"""


class CcnetError(ValueError):
    """Input that the library cannot work with; the message says what is allowed instead."""


class SequenceError(CcnetError):
    """A scale sequence of the wrong length, product or reach."""


class CheckpointError(CcnetError):
    """A checkpoint folder that cannot be loaded as it is."""


class DataError(CcnetError):
    """A data set that is missing, incomplete or not in the format it should be in."""


class PictureError(CcnetError):
    """A picture that cannot be decoded."""


class PictureFormatError(PictureError):
    """A picture in none of the formats that are taken."""


class PictureSizeError(PictureError):
    """A picture with more pixels than allowed."""
