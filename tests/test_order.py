"""Which pairs a step sees: none twice in an epoch, each in one process, in the same order wherever a run begins."""

import numpy as np
import photos
import pytest

from tipsv2.collections.pairs import open_pairs
from train.data.order import StreamOrder, TableOrder, shuffled
from train.tools.simulated_data import Numbers


def numbers(pairs):
    return [photos.number_of(pair.open()) for pair in pairs]


def seen(order, stage, steps, batch_size, share):
    """Per step, the numbers of a process's own pairs."""
    rows = (order.at(stage, step, batch_size) for step in steps)
    return [numbers(row(k) for k in range(share)) for row in rows]


def flat(steps):
    return [number for step in steps for number in step]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_table_shows_no_pair_twice_in_an_epoch_whatever_the_processes(tmp_path, world):
    """27 pairs, batches of 6: 4 steps an epoch, 3 pairs left out; all processes together see them once."""
    pairs, epochs = open_pairs(photos.folder(tmp_path / "x", 27)), []
    orders = [TableOrder(pairs, 1, rank, world) for rank in range(world)]
    for stage, epoch in ((0, 0), (0, 1), (1, 0)):
        steps = range(4 * epoch, 4 * epoch + 4)
        shown = flat(flat(seen(order, stage, steps, 6, 6 // world)) for order in orders)
        assert len(shown) == len(set(shown)) == 24
        epochs.append(shown)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    row = orders[-1].at(0, 3, 6)  # past its own pairs come the others, its own last
    circle = numbers(row(k) for k in range(27 // world))
    assert len(set(circle)) == 27 // world and numbers([row(27 // world)]) == circle[:1]


@pytest.mark.parametrize("sizes", [(3,) * 9, (13, 14), (27,), (2, 9, 4, 12)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_stream_deals_every_pair_of_an_epoch_to_one_process(tmp_path, sizes, world):
    """Also with fewer shards than processes; what a process shows of an epoch is its part, none twice."""
    pairs, share = open_pairs(photos.shards(tmp_path / "x", *sizes)), 6 // world
    for epoch in range(2):
        parts = []
        for rank in range(world):
            order = StreamOrder(pairs, 1, rank, world, buffer=5)
            parts.append(numbers(order._read(0, epoch, 0)))
            before = sum(len(list(order._read(0, e, 0))) // share for e in range(epoch))  # steps
            steps = range(before, before + len(parts[-1]) // share)
            shown = flat(seen(order, 0, steps, 6, share))
            assert len(shown) == len(set(shown)) and set(shown) <= set(parts[-1])
        assert sorted(flat(parts)) == list(range(27))


def test_blocks_shuffle_and_keep_to_their_block(tmp_path):
    order = StreamOrder(open_pairs(photos.shards(tmp_path / "x", 40)), 0, 0, 1, buffer=10)
    shown = flat(seen(order, 0, range(8), 5, 5))
    for start in range(0, 40, 10):
        block = shown[start : start + 10]
        assert sorted(block) == list(range(start, start + 10)) and block != sorted(block)


def test_a_stream_resumes_in_its_shard_and_in_the_same_order(tmp_path):
    """A fresh order at step k gives step k; with what was learned it opens no shard that lies before."""
    pairs = open_pairs(photos.shards(tmp_path / "x", 5, 7, 4, 6, 3, 8))
    record = tmp_path / "data.jsonl"
    record.write_text('{"shards": 6}\n')
    first = StreamOrder(pairs, 3, 0, 1, buffer=4)
    first.remember(record)
    shown = seen(first, 0, range(40), 4, 4)  # five epochs of 33 pairs, 8 steps each
    assert len({tuple(sorted(n for s in shown[e * 8 : e * 8 + 8] for n in s)) for e in range(5)}) > 1
    for step in (0, 3, 7, 8, 21, 39):
        assert seen(StreamOrder(pairs, 3, 0, 1, buffer=4), 0, [step], 4, 4) == [shown[step]]
    known = record.read_text()
    record.write_text(known[: known.index("}", 40) - 3])  # as a killed run may leave it
    for _ in range(2):  # what is learned again is first written on from half a line
        resumed, opened = StreamOrder(pairs, 3, 0, 1, buffer=4), []
        resumed.remember(record)
        seen(resumed, 0, range(9), 4, 4)
    resumed, opened = StreamOrder(pairs, 3, 0, 1, buffer=4), []
    resumed.remember(record)
    assert resumed.sizes == {0: 5, 1: 7, 2: 4, 3: 6, 4: 3, 5: 8}
    read = pairs.read
    resumed.pairs = type("Watched", (), {"shards": 6, "name": "x", "read": lambda _, n: opened.append(n) or read(n)})()
    assert seen(resumed, 0, [22], 4, 4) == [shown[22]]  # pairs 24 to 27 of the third epoch
    ends = np.cumsum([resumed.sizes[s] for s in resumed._shards(0, 2).tolist()])
    assert len(opened) <= 2 and opened[0] == resumed._shards(0, 2)[np.searchsorted(ends, 24, side="right")]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000, 70_001])
def test_numbers_are_shuffled_as_ever_in_half_the_memory(count):
    """Runs that were begun with numpy's own permutation of eight bytes a number go on with the same order."""
    found = shuffled(count, 3, 1, 4)
    assert found.dtype == np.uint32
    assert found.tolist() == np.random.default_rng([3, 1, 4]).permutation(count).tolist()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_table_is_dealt_as_ever(world):
    """As it was when every process held the whole permutation: rank r has every w-th row from r on."""
    for rank in range(world):
        order = TableOrder(Numbers(27), 5, rank, world)
        for step in (0, 3, 4, 9, 1):  # four steps an epoch
            whole = np.random.default_rng([5, 2, step // 4]).permutation(27)[rank::world]
            start = step % 4 * (6 // world)
            row = order.at(2, step, 6)
            assert [row(k) for k in range(30)] == [whole[(start + k) % len(whole)] for k in range(30)]
    assert order._order.base is None or world == 1  # its share alone is held


def dealt(sizes, world, rank, seed, epoch, buffer, share):
    """A process's steps of a stream's epoch, written down from its description: shards in a random order, every w-th
    one, or every w-th pair of all where there are too few; then blocks of whole shares, each shuffled.
    """
    starts = np.cumsum([0, *sizes])
    shards = np.random.default_rng([seed, 0, epoch]).permutation(len(sizes))
    if len(sizes) < world:
        rows = [n for s in shards for n in range(starts[s], starts[s + 1])[rank::world]]
    else:
        rows = [n for s in shards[rank::world] for n in range(starts[s], starts[s + 1])]
    size, shown = max(1, buffer // share) * share, []
    for number, first in enumerate(range(0, len(rows), size)):
        block = rows[first : first + size]
        shown += [block[i] for i in np.random.default_rng([seed, 0, epoch, number]).permutation(len(block))]
        shown = shown[: first + len(block) // share * share]
    return [shown[k : k + share] for k in range(0, len(shown) // share * share, share)]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("shards, world", [(9, 1), (9, 2), (8, 3), (2, 3)])
def test_a_stream_is_dealt_as_ever(shards, world, known):
    """Whether the sizes of its shards are known, and shards are skipped and read unlooked at, or learned meanwhile."""
    pairs, share = Numbers(100, shards), 12 // world
    sizes = [pairs.size(shard) for shard in range(shards)]
    for rank in range(world):
        order = StreamOrder(pairs, 7, rank, world, buffer=10)
        if known:
            order.sizes = dict(enumerate(sizes))
        expected = [step for epoch in range(3) for step in dealt(sizes, world, rank, 7, epoch, 10, share)]
        steps = [*range(len(expected)), *range(len(expected) - 1, 0, -5)]
        for step in steps:
            row = order.at(0, step, 12)
            assert [row(k) for k in range(share)] == expected[step], (rank, step)
        assert order.steps(0, 1, 12) == len(dealt(sizes, world, rank, 7, 1, 10, share))


def test_of_a_known_epoch_nothing_is_counted_again():
    """A step late in a long run looks the epochs before it up; at first it deals each epoch's shards once."""
    order = StreamOrder(Numbers(1000, 50), 0, 0, 2, buffer=8)
    order.sizes = {shard: 20 for shard in range(50)}
    order.at(0, 6000, 16)
    order.sizes = {}  # would be missed if the epochs were counted anew
    order._block_key, order._open_key = None, None
    assert order.steps(0, 3, 16) == 500 // 8
    with pytest.raises(KeyError):
        order.sizes[0]
