"""Checkpoints that come, change or go while the service runs: seen by looking at their folder, and swapped.

    look      every `CCNET_RELOAD_S` seconds, on a thread: names, sizes, times of change and inodes of all files. What
              looks the same twice in a row and is not what was loaded is taken; what is still being copied waits
    load      on that thread too, while requests are answered
    warm up   one pass on the inference thread, between two batches
    swap      one assignment. Requests that were admitted hold the model that they came with and finish on it
    let go    when the last of them is answered, what was prepared for the old model is forgotten, and what requests
              without a seed need is prepared for the new one; until then there is no further look, so that no more than
              one old version is in memory

A checkpoint that cannot be loaded or gives no finite logits is refused: one line in the log, one count, and it is not
tried again before it changes. What was served stays. A folder that goes takes its model with it, unless that one is the
last or named by `CCNET_MODEL`.

Nothing is ever written here, so a process that dies leaves no trace.
"""

import asyncio
import logging
import time
import weakref
from dataclasses import asdict
from pathlib import Path

from ccnet.errors import CcnetError, CheckpointError
from service.engine import Engine
from service.logs import log
from service.metrics import Metrics
from service.served import (
    CheckpointModel,
    FolderState,
    ServedModel,
    choose_device,
    folder_state,
    load_model,
    visible_folders,
)
from service.settings import Settings

LOOKS_FOR_USERS_S = 0.05


class Reloader:
    """Keeps the models of an engine as its folder of checkpoints is. One task uses it.

    Args:
        settings: The folder, and how often to look.
        engine: Has loaded its models.
        metrics: Where reloads are counted and models known.
    """

    def __init__(self, settings: Settings, engine: Engine, metrics: Metrics) -> None:
        self._settings = settings
        self._engine = engine
        self._metrics = metrics
        sources = {model.name: model.source for model in engine.models if isinstance(model, CheckpointModel)}
        self._homes = {name: source.folder for name, source in sources.items()}
        self._tried = {source.folder: source.state for source in sources.values()}  # loaded or refused
        self._seen = dict(self._tried)  # at the last look
        self._kept: set[str] = set()  # models whose folder is gone
        self._complaint = ""

    async def run(self) -> None:
        """Look until cancelled; whatever goes wrong is logged, and looked at again."""
        while True:
            await asyncio.sleep(self._settings.reload_s)
            try:
                await self.look()
                self._complaint = ""
            except Exception as error:
                if (complaint := f"{type(error).__name__}: {error}") != self._complaint:
                    self._complaint = complaint
                    foreseen = isinstance(error, OSError)
                    log(logging.ERROR, f"cannot look for checkpoints: {error}", exc_info=None if foreseen else error)

    async def look(self) -> None:
        """One look: take what has been still since the last one, unload what is gone.

        Raises:
            OSError: The folder of checkpoints is not there, or cannot be read; nothing was changed then.
        """
        found = await asyncio.to_thread(_states, self._settings.checkpoints)
        before, self._seen = self._seen, found
        for folder, state in found.items():
            if before.get(folder) == state and self._tried.get(folder) != state:
                await self._take(folder, state)
        for folder in self._tried.keys() - found.keys() - before.keys():
            del self._tried[folder]  # so that it is tried again when it comes back
        for name, home in list(self._homes.items()):
            if home not in found and home not in before:
                await self._unload(name)

    async def _take(self, folder: Path, state: FolderState) -> None:
        """Load what is in a folder and serve it, or refuse it."""
        started = time.perf_counter()
        try:
            model = await asyncio.to_thread(self._load, folder)
            if model.source.state != state or await asyncio.to_thread(folder_state, folder) != state:
                return  # it changed while it was read; a later look finds it still
            await self._engine.warm_up(model)
        except Exception as error:
            if (await asyncio.to_thread(_states, self._settings.checkpoints)).get(folder) == state:
                self._refuse(folder, state, error)
            return
        self._tried[folder] = state
        replaced = self._reference(model.name)
        former = [name for name, home in self._homes.items() if home == folder and name != model.name]
        self._serve(model)
        seconds = round(time.perf_counter() - started, 3)
        log(logging.INFO, "checkpoint loaded", model=model.name, replaced=replaced is not None, seconds=seconds)
        del model
        for name in former:
            await self._unload(name)
        await self._let_go(replaced)

    def _refuse(self, folder: Path, state: FolderState, error: Exception) -> None:
        self._tried[folder] = state
        self._metrics.reloads.labels("refused").inc()
        foreseen = isinstance(error, CcnetError | OSError)
        message = f"checkpoint refused, what was served stays: {error}"
        log(logging.ERROR, message, exc_info=None if foreseen else error, folder=str(folder))

    def _load(self, folder: Path) -> CheckpointModel:
        """On a thread of its own.

        Raises:
            CheckpointError: Damaged, or of the name of another one.
            OSError: It cannot be read.
        """
        model = load_model(folder, choose_device(self._settings.device), self._engine.plans)
        home = self._homes.get(model.name, folder)
        if home != folder and home.is_dir():
            raise CheckpointError(f"{folder} and {home} are both called {model.name!r}; rename one")
        model.sample(self._settings.ensemble_size, seed=0)  # fails if its config describes no distribution
        return model

    def _serve(self, model: CheckpointModel) -> None:
        """From here on requests get this model; nothing waits in between."""
        self._engine.adopt(model)
        self._homes[model.name] = model.source.folder
        self._kept.discard(model.name)
        self._metrics.forget_model(model.name)
        self._metrics.know_model(model)
        self._metrics.reloads.labels("done").inc()

    async def _unload(self, name: str) -> None:
        """Serve a model no longer, unless requests would then find none."""
        last = len(self._engine.models) == 1
        if last or name == self._settings.model:
            if name not in self._kept:
                self._kept.add(name)
                why = "it is the last one" if last else "CCNET_MODEL names it"
                log(logging.WARNING, f"the folder of {name} is gone; it is still served, because {why}", model=name)
            return
        released = self._reference(name)
        self._engine.release(name)
        del self._homes[name]
        default = self._engine.default_model.name
        log(logging.INFO, "checkpoint unloaded", model=name, default=default)
        await self._let_go(released)
        self._metrics.forget_model(name)

    def _reference(self, name: str) -> "weakref.ref[ServedModel] | None":
        """To a model that is served, without keeping it in memory."""
        return next((weakref.ref(model) for model in self._engine.models if model.name == name), None)

    async def _let_go(self, former: "weakref.ref[ServedModel] | None") -> None:
        """Wait until no request uses the former model, then use its room for what is served now."""
        patience_s = self._settings.request_timeout_ms / 1000
        give_up = time.monotonic() + patience_s
        while former is not None and former() is not None and time.monotonic() < give_up:
            await asyncio.sleep(LOOKS_FOR_USERS_S)
        prepared = await asyncio.to_thread(self._engine.renew_plans)
        log(logging.INFO, "weights prepared for requests without a seed", **asdict(prepared))


def _states(checkpoints: Path) -> dict[Path, FolderState]:
    """The state of every checkpoint folder; those that cannot be read have no files in it.

    Raises:
        OSError: The folder that holds them is not there.
    """
    if not checkpoints.is_dir():
        raise FileNotFoundError(f"{checkpoints.absolute()} is not there; all models stay as they are")
    states: dict[Path, FolderState] = {}
    for folder in visible_folders(checkpoints):
        try:
            states[folder] = folder_state(folder)
        except FileNotFoundError:  # it went while we looked
            continue
        except OSError:
            states[folder] = frozenset()
    return states
