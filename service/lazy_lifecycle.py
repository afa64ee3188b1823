"""The lifecycle of a server whose models are loaded by requests: what is not in memory is dormant, and may be again."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from service.dormant_models import describe_dormant, put_to_rest
from service.lifecycle import Lifecycle, LoadError
from service.model_change import mark_failed
from service.model_folders import ModelFolder
from service.model_plan import measure_files
from service.repository import ModelVersion, Repository, State
from service.status import NotFoundError, UnavailableError
from service.version_entries import look_into, move
from service.version_loader import UNFORESEEN_FAILURE

if TYPE_CHECKING:
    from kernels.engine import Engine

logger = logging.getLogger(__name__)


class LazyLifecycle(Lifecycle):
    """As Lifecycle, with models that requests bring into memory, by service.lazy_loading, and that may leave it.

    Parameters
    ----------
    is_lazy
        Whether a model of that name is loaded by the first request for it, and not at the start.
    """

    def __init__(
        self,
        root: Path,
        engine: "Engine",
        repository: Repository,
        *,
        is_lazy: Callable[[str], bool],
        default_max_batch_size: int = 64,
    ):
        super().__init__(root, engine, repository, default_max_batch_size=default_max_batch_size)
        self._is_lazy = is_lazy

    def _look_into(self, folder: ModelFolder) -> tuple[list[ModelVersion], Mapping[str, int]]:
        return look_into(folder) if self._is_lazy(folder.name) else super()._look_into(folder)

    # ---- into memory

    def load_dormant(self, name: str) -> None:
        """As `load`, for requests that wait: they hear of whatever keeps a model from being loaded."""
        with self._steps.load_for(name), self._take_turn(name):
            self._wake(name)

    def _wake(self, name: str) -> None:
        """Load a model that may be dormant, within one turn: whoever comes next may make it dormant again."""
        try:
            with self._find_folder(name) as folder:
                plan = self._plan(folder)
                self._check_circle(folder)
                self._bring_up(plan)
        except UnavailableError:
            raise
        except NotFoundError:
            self._put_in_place(move(self._list_known(name), State.REMOVED))
            raise
        except LoadError as error:
            self._refuse(name, str(error))
            self._give_up_waiting(name)
            raise
        except Exception as error:
            logger.error("model failed to load", exc_info=error, extra={"model": name})
            self._refuse(name, UNFORESEEN_FAILURE)
            raise LoadError(f"failed to load {name!r}: {UNFORESEEN_FAILURE}") from None

    def _check_circle(self, folder: ModelFolder) -> None:
        """Raise LoadError for an ensemble that contains itself: each in the circle would wait for a dormant one."""
        circle = self._steps.find_circle(folder.name)
        if circle:
            self._keep_all(folder, circle)
            raise LoadError(f"failed to load {folder.name!r}: {circle}")

    def _refuse(self, name: str, reason: str) -> None:
        """Have requests for what is still dormant of a model refused; most failures have seen to that themselves."""
        self._put_in_place([mark_failed(entry, reason) for entry in self._list_known(name) if entry.is_dormant])

    def _give_up_waiting(self, name: str) -> None:
        """Take back versions of an ensemble that would wait for their steps: those that are there could never rest."""
        faults = self._ensembles.list_faults(name)
        for version in faults:
            self._served.get(name, {}).pop(version, None)
        self._put_in_place([ModelVersion(name, version, State.UNAVAILABLE, fault) for version, fault in faults.items()])

    def refuse_dormant(self, name: str) -> None:
        """Answer requests that wait for a model of which it could not even be tried to load it."""
        with self._take_turn(name):
            self._refuse(name, UNFORESEEN_FAILURE)

    def follow(self, name: str) -> None:
        """Take up what has changed of a model: load it, or leave that to a request for it. Raises as `load`."""
        with self._take_turn(name), self._find_folder(name) as folder:
            if self._is_lazy(name) and not self._served.get(name) and not self._ensembles.contain(name):
                plan = self._plan(folder)
                self._put_in_place(describe_dormant(plan, self._list_known(name)), {name: plan.written.labels})
                return
        self.load(name)

    def _has_to_load(self, step: str) -> bool:
        return self._is_lazy(step) or super()._has_to_load(step)

    def _load_step(self, step: str) -> None:
        if not self._is_lazy(step):
            super()._load_step(step)
            return
        with contextlib.suppress(LoadError, NotFoundError), self._take_turn(step):
            if not self._served.get(step):
                self._wake(step)

    # ---- out of memory

    def rest(self, name: str) -> bool:
        """Take a model out of memory until the next request for it; what it has begun is finished.

        That may last beyond the return where a request or a sequence has come at the last moment.

        Returns
        -------
        bool
            False when it is not in memory, when an ensemble that is loaded contains it, when it is one that waits for
            its steps, or when somebody loads or unloads it just now.
        """
        with self._turns.try_to_take(name) as is_taken:
            if not is_taken or not self._may_rest(name) or not self._served.pop(name, None):
                return False
            self._put_in_place(put_to_rest(self._list_known(name)), retire=self._loader.let_go)
            return True

    def _may_rest(self, name: str) -> bool:
        """Asked within the model's turn, which a load of an ensemble that contains it takes as well."""
        # In this order: an ensemble is among those that are loaded before its steps are no longer needed for its load.
        is_kept = self._steps.is_needed(name) or self._ensembles.contain(name)
        return not is_kept and not self._ensembles.list_faults(name)

    # ---- asked by who decides what is to be in memory

    def measure_files(self, name: str) -> int:
        """The bytes of the ONNX files that a load opens: of all versions, and of an ensemble's steps that it loads."""
        missing = [step for step in self._steps.find(name) if not self._served.get(step)]
        return sum(measure_files(self._root, model) for model in (name, *missing))

    def is_refused(self, name: str) -> bool:
        """Whether there is such a model and requests for it are refused, whatever the version."""
        try:
            known = self._repository.list_versions(name)
        except NotFoundError:
            return False
        return all(entry.state is not State.READY for entry in known)

    def list_missing_steps(self) -> list[str]:
        """Models that could not be loaded and for which an ensemble in memory waits: no request asks for them."""
        return [step for step in self._ensembles.list_awaited() if self._is_lazy(step) and self.is_refused(step)]

    def is_on_gpu(self, name: str) -> bool:
        """Whether a model is in memory and an instance of it on a GPU."""
        served = [entry.config for entry in self._list_known(name) if not entry.is_dormant and entry.config is not None]
        return any(group.gpus for config in served for group in config.proto.instance_group)
