"""Every kept input, and every input that has found a fault, once more, without a fuzzer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fuzz import mutator, targets
from tests.fuzz.inputs import MAX_INPUT_BYTES, Input, in_time, raises_only

MAX_CORPUS_BYTES = 300_000
FOUND = [(name, path) for name in targets.TARGETS for path in targets.kept(targets.FAULTS, name)]


@pytest.mark.parametrize("name", targets.TARGETS)
def test_no_kept_input_breaks_a_property(name: str) -> None:
    inputs = targets.kept(targets.CORPUS, name)
    assert inputs, "the corpus is empty"
    for path in inputs:
        try:
            targets.run(name, path.read_bytes())
        except BaseException as error:
            error.args = (f"{path.name}: {error}", *error.args[1:])
            raise


@pytest.mark.parametrize(("name", "path"), FOUND, ids=lambda value: getattr(value, "name", value))
def test_each_fault_that_was_found_stays_mended(name: str, path: Path) -> None:
    targets.run(name, path.read_bytes())


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    for folder in (targets.CORPUS, targets.FAULTS):
        assert {path.name for path in folder.iterdir()} <= set(targets.TARGETS)
    sizes = [path.stat().st_size for path in targets.CORPUS.rglob("*") if path.is_file()]
    assert sum(sizes) <= MAX_CORPUS_BYTES


def test_an_input_is_read_part_by_part() -> None:
    read = Input(b"12\nfirst\n~~\n[{{3|1,}}0]\n~~\n$SECRET{{99999|ab}}")
    assert (read.choose("abc"), read.choose("abc"), read.choose("abc")) == ("b", "c", "a")
    assert (read.text(), read.json()) == ("first", [1, 1, 1, 0])
    assert len(read.body()) <= MAX_INPUT_BYTES
    assert read.body() == b""


def test_a_message_with_the_secret_and_a_slow_input_are_faults() -> None:
    with pytest.raises(AssertionError, match="shows the secret"), raises_only(ValueError):
        raise ValueError("no Ca-n4ry/s3cret+of=the.connection")
    with pytest.raises(AssertionError, match="it took"), in_time(0.0):
        sum(range(10_000))
    with pytest.raises(TypeError), raises_only(ValueError):
        raise TypeError("another")


def test_most_changes_of_json_are_json() -> None:
    data = b'0\n{"status": "success", "instance": {"id": "1", "state": "Running"}}'
    changed = {mutator.mutate(data, 4096, seed, lambda part, _: part[::-1]) for seed in range(200)}
    assert len(changed) > 50
    intact = 0
    for one in changed:
        try:
            json.loads(one.partition(b"\n")[2])
            intact += 1
        except ValueError:
            pass
    assert intact > len(changed) * 0.7
