"""The fuzzer's corpus, on the kernels as they are served: inputs that broke a promise once, or go ways of their own."""

import pytest

from fuzz.__main__ import CORPUS
from fuzz.catalogue import CATALOGUE
from fuzz.corpus import read_inputs
from fuzz.worker import load_target

pytest.importorskip("kernels.transport", reason="the native transport is not built")


@pytest.mark.parametrize("name", CATALOGUE)
def test_corpus_breaks_no_promise(name):
    """Nor do the first inputs of a search."""
    inputs = read_inputs(CORPUS / name)
    assert inputs
    target = load_target(CATALOGUE[name].target)
    try:
        for data in [*inputs, *CATALOGUE[name].make_seeds()]:
            target.run(data)
    finally:
        target.close()


def test_corpus_is_small():
    """It is read by people who review it, and by every checkout."""
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert len(files) <= 100
    assert sum(path.stat().st_size for path in files) <= 200 * 1024
