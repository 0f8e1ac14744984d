"""Options that several verbs have."""

from pathlib import Path
from typing import Annotated

import typer

from ccnet.cli_support import number_option

CheckpointOption = Annotated[
    str | None, typer.Option("--checkpoint", "-c", help="Checkpoint folder, or its name under CCNET_CHECKPOINTS.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; auto takes a GPU when there is one.")]
DataDirOption = Annotated[Path | None, typer.Option(help="Folder of the data set; default: the system's.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
MaxNumeratorOption = Annotated[
    int | None, number_option(least=1, text="Largest numerator of a scale (conditioned); default: no limit.")
]
SeedOption = Annotated[int | None, number_option(text="Of the drawn sequences; drawn anew when absent, and shown.")]
