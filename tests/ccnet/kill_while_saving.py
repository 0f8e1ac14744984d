"""Kill processes with SIGKILL while they save checkpoints and training states, and load what they left.

    python kill_while_saving.py FOLDER

A child saves without end, its weights all equal to a number that changes each time. After every kill the checkpoint
and the state must load and hold one number throughout. The last line printed is JSON: how many children were
killed, and how many in the middle of a save (they left a temporary sibling behind).
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from ccnet.checkpoint import load_checkpoint, save_checkpoint
from ccnet.models import ConvNet
from ccnet.preprocessing import Preprocessing
from ccnet.training_state import read_state, write_state

KILLS = 12


def save(model: ConvNet, folder: Path, number: int) -> None:
    """One checkpoint and one state with all weights equal to `number`."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(number % 100)
    preprocessing = Preprocessing(1, (28, 28), (32, 32), (0.5,), (0.5,))
    save_checkpoint(model, folder / "net", labels=list("abcdefghij"), preprocessing=preprocessing)
    write_state(folder / "state.safetensors", dict(model.state_dict()), {"number": number % 100})


def check(folder: Path) -> None:
    """What lies there is complete and of one save."""
    weights = load_checkpoint(folder / "net").model.state_dict().values()
    assert len({float(value) for tensor in weights for value in (tensor.min(), tensor.max())}) == 1
    tensors, values = read_state(folder / "state.safetensors")
    assert {float(value) for tensor in tensors.values() for value in (tensor.min(), tensor.max())} == {values["number"]}


def main() -> None:
    """Save once, then kill and check again and again, at moments spread over the length of one save."""
    torch.set_num_threads(1)  # a forked child has no other threads
    folder = Path(sys.argv[1])
    model = ConvNet(1, 10)
    started = time.monotonic()
    save(model, folder, 0)
    length = time.monotonic() - started
    middle = 0
    for kill in range(KILLS):
        child = os.fork()
        if child == 0:
            for number in range(1, 10**9):
                save(model, folder, number)
        time.sleep(length * (0.1 + 1.3 * kill / KILLS))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        middle += bool(list(folder.glob(".*.tmp")))
        check(folder)
    save(model, folder, 1)
    assert sorted(path.name for path in folder.iterdir()) == ["net", "state.safetensors"], "leftovers are cleaned"
    print(json.dumps({"kills": KILLS, "killed_in_the_middle": middle}))


if __name__ == "__main__":
    main()
