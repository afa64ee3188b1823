"""The settings that say whether models are loaded by the first request, and how much memory they may take."""

from dataclasses import dataclass, field

from service.setting_checks import about, between


@dataclass(frozen=True, kw_only=True)
class LazySettings:
    """A part of the table of settings."""

    lazy_loading: bool = field(
        default=False,
        metadata=about("Load a model when the first request for it comes, which waits for that, not at the start."),
    )
    memory_budget_bytes: int = field(
        default=0,
        metadata=about(
            "Most bytes that lazily loaded models may take; beyond, idle ones leave memory, the least recently used "
            "first; 0 is without limit.",
            between(0, 2**63 - 1),
        ),
    )
    pinned_models: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Name of a model that lazy loading loads at the start and never takes out of memory.", kind="NAME"
        ),
    )
