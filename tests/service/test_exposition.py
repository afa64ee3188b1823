"""Prometheus's text format, read back by the format's own parser."""

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.exposition import Family, format_labels, format_number, write_text


def parse(*families):
    """Families as a scraper sees them, by name."""
    return {family.name: family for family in text_string_to_metric_families(write_text(families).decode())}


def test_counter_and_gauge_come_back_with_meaning_and_labels():
    """Whole numbers to the last digit, beyond what a double holds."""
    counter = Family("nv_inference_count", "counter", "Number of inferences")
    counter.add(2**53 + 1, format_labels({"model": "tiny", "version": "1"}))
    gauge = Family("nv_cpu_utilization", "gauge", "CPU utilization rate")
    gauge.add(0.25)
    text = write_text([counter, gauge]).decode()
    assert 'nv_inference_count{model="tiny",version="1"} 9007199254740993\n' in text
    found = parse(counter, gauge)
    assert found["nv_cpu_utilization"].documentation == "CPU utilization rate"
    assert [sample.value for sample in found["nv_cpu_utilization"].samples] == [0.25]
    assert found["nv_inference_count"].samples[0].labels == {"model": "tiny", "version": "1"}


@pytest.mark.parametrize("value", ['quote " and backslash \\', "line\nbreak", "ünïcödé", "", '\\"', "a,b}=c"])
def test_label_of_any_text_comes_back_whole(value):
    """Nothing in a name ends its label."""
    family = Family("sluice_test", "gauge", "A test\nof \\ escapes")
    family.add(1, format_labels({"model": value, "version": "1"}))
    assert parse(family)["sluice_test"].samples[0].labels == {"model": value, "version": "1"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2**70, str(2**70)),
        (0.1, "0.1"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
        (1e300, "1e+300"),
    ],
)
def test_number_has_a_form_of_the_format(value, text):
    """As Go's parser reads them."""
    assert format_number(value) == text


def test_histogram_adds_its_buckets_up():
    """Each bucket holds those before it; the last one is the count."""
    family = Family("sluice_time_seconds", "histogram", "Time")
    family.add_histogram(("0.001", "0.002"), (1, 2, 3), 0.5, format_labels({"model": "tiny"}))
    samples = parse(family)["sluice_time_seconds"].samples
    assert [
        (sample.name.removeprefix("sluice_time_seconds"), sample.labels.get("le"), sample.value) for sample in samples
    ] == [
        ("_bucket", "0.001", 1),
        ("_bucket", "0.002", 3),
        ("_bucket", "+Inf", 6),
        ("_sum", None, 0.5),
        ("_count", None, 6),
    ]


def test_family_without_samples_is_left_out():
    """A metric of models, where there is none."""
    assert write_text([Family("nv_inference_count", "counter", "Number of inferences")]) == b"\n"
