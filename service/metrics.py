"""Everything that a scrape gets: families from one source after another, as text."""

import logging
from collections.abc import Callable, Iterable

from service.exposition import Family, write_text

Source = Callable[[], Iterable[Family]]

logger = logging.getLogger(__name__)


class Metrics:
    """The sources of metrics; whoever knows more adds its own before the first scrape."""

    def __init__(self, *sources: Source):
        self._sources = list(sources)

    def add(self, source: Source) -> None:
        """Ask one more source at each scrape, from several threads at a time perhaps."""
        self._sources.append(source)

    def write(self) -> bytes:
        """The text of one scrape. A source that fails is logged, and the others' families still come."""
        families: list[Family] = []
        for source in self._sources:
            try:
                families.extend(source())
            except Exception:
                logger.exception("metrics source failed")
        return write_text(families)
