"""The model of communication in closed form."""

from pathlib import Path

import pytest

from benchmarks.planning.communication import H200, Links, communication
from benchmarks.planning.scaling import BATCH_SIZE, Model, images_per_second, table


def test_one_device_sends_nothing():
    found = communication(10**6, 1, 1)
    assert (found.bytes_inside, found.bytes_between, found.seconds) == (0, 0, 0)


def test_copies_in_one_node_sum_gradients_in_a_ring():
    found = communication(10**6, 8, 1)
    assert found.bytes_inside == 2 * 4e6 * 7 / 8 and found.bytes_between == 0
    assert found.seconds == found.bytes_inside / 450e9


@pytest.mark.parametrize("gathers", [1, 2])
def test_parts_in_one_node_gather_weights_and_scatter_gradients(gathers):
    found = communication(10**6, 8, 8, gathers=gathers)
    assert found.bytes_inside == gathers * 4e6 * 7 / 8 + 4e6 * 7 / 8
    assert found.bytes_between == 0


def test_nodes_sum_what_each_device_holds():
    # 64 GPUs: inside as before, and an eighth of the gradients between eight nodes, whether they
    # are copied in a node (then scattered and gathered there) or split.
    split, copied = communication(10**6, 64, 8), communication(10**6, 64, 1)
    for found in (split, copied):
        assert found.bytes_between == pytest.approx(2 * 4e6 / 8 * 7 / 8)
    assert split.bytes_inside == communication(10**6, 8, 8).bytes_inside
    assert copied.bytes_inside == communication(10**6, 8, 1).bytes_inside
    assert split.seconds == split.bytes_inside / 450e9 + split.bytes_between / 50e9


def test_parts_over_several_nodes_are_gathered_from_all():
    # A ring over two nodes of two devices: half of an array comes from the other node, each device
    # fetching its half of that.
    links = Links(inside=1.0, between=1.0, node=2)
    found = communication(1000, 4, 4, links)
    assert found.bytes_between == pytest.approx(2 * 4000 * (1 / 2) / 2)
    assert found.bytes_inside == pytest.approx(2 * 4000 * (1 / 2))
    assert H200.node == 8


def test_images_of_many_devices_are_those_of_one_less_what_crosses():
    alone = Model("", 10**6, seconds=0.1)
    assert images_per_second(alone, 1) == BATCH_SIZE / 0.1
    crossing = 2 * 4e6 * 7 / 8 / 450e9
    assert images_per_second(alone, 8) == pytest.approx(8 * BATCH_SIZE / (0.1 + crossing))
    split = alone._replace(gathers=2)
    # Weights are gathered twice, gradients scattered, all in float32.
    crossing = (2 * 4e6 + 4e6) * 7 / 8 / 450e9
    assert images_per_second(split, 8) == pytest.approx(8 * BATCH_SIZE / (0.1 + crossing))


def test_the_page_has_the_table():
    assert table() in (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
