"""A few hundred of the damaged pictures of ``benchmarks/fuzz_pictures.py``, decoded one by one."""

from __future__ import annotations

import random

import pytest

from benchmarks.fuzz_pictures import MUTATIONS, mutate, seeds
from soutu.errors import BadImage
from soutu.images.decode import decode, read_header

SEEDS = seeds()


@pytest.mark.parametrize("kind", sorted(SEEDS))
def test_whole_ones_are_read(kind):
    for data in SEEDS[kind]:
        assert decode(data, name=f"a.{kind}").rgb.ndim == 3


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", sorted(SEEDS))
def test_damaged_ones_are_read_or_named(kind):
    chance = random.Random(kind)
    read = refused = 0
    for _ in range(40):
        data = mutate(chance.choice(SEEDS[kind]), SEEDS[kind], chance)
        read_header(data, f"a.{kind}")
        try:
            decoded = decode(data, name=f"a.{kind}", max_pixels=5_000_000, min_side=40)
        except BadImage as error:
            refused += str(error).startswith(f"a.{kind}")
        else:
            assert decoded.rgb.ndim == 3
            read += 1
    assert read
    assert read + refused == 40


def test_a_mutation_changes_bytes():
    chance = random.Random(1)
    data = SEEDS["png"][0]
    for mutation in MUTATIONS:
        changed = {bytes(data)}
        for _ in range(20):
            mutant = bytearray(data)
            mutation(mutant, chance)
            changed.add(bytes(mutant))
        assert len(changed) > 3, mutation.__name__
