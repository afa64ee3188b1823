"""dynamic_batching as it is written: levels, policies and sizes for the engine, and what is refused by name."""

import onnx_models
import pytest

from kernels.engine import Engine
from kernels.queue_options import QueueOptions, QueuePolicy
from service.config_text import ModelConfigError
from service.model_config import read_config
from service.model_folders import find_model
from service.model_plan import plan_model
from service.version_loader import VersionLoader

LEVELS = """
max_batch_size: 16
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  preserve_ordering: true
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy { default_timeout_microseconds: 5000 allow_timeout_override: true max_queue_size: 7 }
  priority_queue_policy { key: 3 value { timeout_action: DELAY default_timeout_microseconds: 100 } }
}
parameters { key: "no_delay_when_alone" value { string_value: "true" } }
parameters { key: "refuse_late_requests" value { string_value: "false" } }
"""


def read(tmp_path, text):
    """The options of a configuration of this text."""
    path = tmp_path / "config.pbtxt"
    path.write_text(text)
    return read_config(path, "digits").queueing


def test_every_field_of_the_queue_is_read(tmp_path):
    """A level without a policy of its own has the default one."""
    default = QueuePolicy(max_requests=7, timeout_us=5000, takes_timeouts=True)
    assert read(tmp_path, LEVELS) == QueueOptions(
        levels=(default, default, QueuePolicy(timeout_us=100, postpones=True)),
        default_level=2,
        preferred_batch_sizes=(4, 8),
        keeps_order=True,
        skips_delay_alone=True,
        refuses_late=False,
    )


def test_queue_of_no_field_has_one_level_without_limits(tmp_path):
    """And refuses what would be late."""
    assert read(tmp_path, "") == QueueOptions(levels=(QueuePolicy(),))


def test_policy_without_priorities_is_that_of_the_only_level(tmp_path):
    """As most write it."""
    text = "dynamic_batching { default_queue_policy { max_queue_size: 9 } }"
    assert read(tmp_path, text).levels == (QueuePolicy(max_requests=9),)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("preferred_batch_size: [ 0 ]", "preferred_batch_size: expected sizes of at least 1, given 0"),
        ("preferred_batch_size: [ -4 ]", "preferred_batch_size: expected sizes of at least 1, given -4"),
        (f"preferred_batch_size: {[1] * 65}", "preferred_batch_size: expected at most 64 sizes, given 65"),
        ("priority_levels: 1025 default_priority_level: 1", "priority_levels: expected a number from 0 to 1024"),
        ("priority_levels: 2", "default_priority_level: .* from 1 to priority_levels, which is 2, given 0"),
        ("priority_levels: 2 default_priority_level: 3", "default_priority_level: expected a level from 1"),
        ("default_priority_level: 1", "default_priority_level: expected a level from 1 to priority_levels, which is 0"),
        (
            "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 value {} }",
            "priority_queue_policy: expected levels from 1 to priority_levels, which is 2, given 3",
        ),
        ("priority_queue_policy { key: 0 value {} }", "priority_queue_policy: expected levels from 1"),
        ("default_queue_policy { timeout_action: 7 }", "default_queue_policy.timeout_action: expected REJECT or DELAY"),
        (
            f"default_queue_policy {{ default_timeout_microseconds: {2**63} }}",
            "default_queue_policy.default_timeout_microseconds: expected a number from 0 to",
        ),
        (
            "priority_levels: 1 default_priority_level: 1 priority_queue_policy { key: 1 value { timeout_action: 7 } }",
            r"priority_queue_policy\[1\].timeout_action: expected REJECT or DELAY",
        ),
    ],
)
def test_value_out_of_range_is_refused_by_its_field(tmp_path, field, expected):
    """With what was expected."""
    with pytest.raises(ModelConfigError, match=f"dynamic_batching.{expected}"):
        read(tmp_path, f"dynamic_batching {{ {field} }}")


@pytest.mark.parametrize("name", ["no_delay_when_alone", "refuse_late_requests"])
def test_choice_that_is_neither_true_nor_false_is_refused(tmp_path, name):
    """A typing error must not choose."""
    with pytest.raises(ModelConfigError, match=rf"parameters\['{name}'\]: expected 'true' or 'false', given 'yes'"):
        read(tmp_path, f'parameters {{ key: "{name}" value {{ string_value: "yes" }} }}')


@pytest.mark.parametrize("max_batch_size", [0, 7])
def test_preferred_size_beyond_the_largest_batch_is_refused(tmp_path, max_batch_size):
    """Which the model file may have settled."""
    config = f"max_batch_size: {max_batch_size} dynamic_batching {{ preferred_batch_size: [ 2, 8 ] }}"
    onnx_models.save(onnx_models.tiny(), tmp_path, config=config)
    engine = Engine()
    with pytest.raises(ModelConfigError, match=f"of at most max_batch_size, which is {max_batch_size}, given"):
        VersionLoader(engine, 8).prepare(plan_model(find_model(tmp_path, "tiny")), 1)
    engine.close()
