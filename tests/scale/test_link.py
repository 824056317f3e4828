"""Processes that meet, stop together and end together: here threads, on real connections."""

import json
import signal
import socket
import threading
import time

import pytest

from deit_jax.runs.interruption import Interruption
from deit_jax.scale import hub as hub_module
from deit_jax.scale import link as link_module
from deit_jax.scale.failure import DEVICE, ERROR, LOST, REFUSED, Failure, cause_of
from deit_jax.scale.link import meet
from deit_jax.scale.membership import _read_flags, _same_words
from deit_jax.scale.place import ProcessPlace


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def ends(monkeypatch):
    """What each thread would have ended its process with: {name of thread: (code, line)}."""
    found = []

    def leave_at_once(code, line):
        found.append((code, line))
        threading.Event().wait()

    # For good: a thread that outlives its test must not end the process of the tests.
    link_module.leave_at_once = leave_at_once
    link_module._ANSWER_SECONDS = 1e6
    # Threads do not close their connections as processes do.
    monkeypatch.setattr(hub_module, "_LEAVING_SECONDS", 0.3)
    return found


def gather(count, *, words=None, seconds=20.0, indices=None):
    """Let processes meet; returns their links, None for those that did not come to it."""
    port, links = free_port(), {}

    def come(number, index):
        place = ProcessPlace(count, index, "127.0.0.1", port, "the test")
        links[number] = meet(place, words[number] if words else [], seconds)

    threads = [
        threading.Thread(target=come, args=pair, daemon=True)
        for pair in enumerate(indices or range(count))
    ]
    for thread in threads:
        thread.start()
    return links, threads


def met(count):
    links, threads = gather(count)
    for thread in threads:
        thread.join(20)
    return [links[i] for i in range(count)]


def connected(port):
    """A connection to who will soon listen there."""
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError("nobody listens")


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_they_meet_and_say_goodbye(ends):
    links = met(3)
    assert len({link.jax_address for link in links}) == 1
    assert links[0].jax_address.startswith("127.0.0.1:")
    # All are on this machine.
    assert [(link.beside.index, link.beside.count) for link in links] == [(0, 3), (1, 3), (2, 3)]
    threads = [threading.Thread(target=link.finish, args=(20,)) for link in links[:2]]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    assert all(thread.is_alive() for thread in threads)
    links[2].finish(20)
    for thread in threads:
        thread.join(20)
    assert not ends


def test_a_process_that_is_killed_ends_the_others_with_its_name(ends):
    links = met(3)
    begin = time.monotonic()
    # As the system does for a dead process.
    links[2]._connection.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: len(ends) == 3)
    assert time.monotonic() - begin < 5
    said = [line for _, line in ends if line]
    assert {code for code, _ in ends} == {4}
    # By process 0 alone, besides the one here that is none but has lost its connection.
    assert sum("process 2 (process" in line for line in said) == 1
    assert sum("has ended without a word" in line for line in said) == 2


def test_the_end_of_process_0_is_said_by_all(ends):
    links = met(2)
    links[1]._connection.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: len(ends) == 2)
    assert "error: process 0 (process " in ends[0][1] and ends[0][0] == 4


def test_what_all_say_is_said_once_and_what_one_says_with_its_name(ends):
    for failing, text in (((0, 1), "error: no such file"), ((1,), "process 1 on ")):
        ends.clear()
        links = met(2)
        for index in failing:
            threading.Thread(
                target=links[index].leave, args=(2, "error: no such file"), daemon=True
            ).start()
        wait_for(lambda: len(ends) == 2)
        assert [code for code, _ in ends] == [2, 2]
        (said,) = [line for _, line in ends if line]
        assert said.startswith(text) and said.endswith("error: no such file")


def test_the_detail_of_the_cause_alone_is_shown(ends):
    links = met(2)
    for link, kind in zip(links, (DEVICE, ERROR), strict=True):
        failure = Failure(kind, 1, f"error: {kind}")
        threading.Thread(target=link.fail, args=(failure, f"trace {kind}\n"), daemon=True).start()
    wait_for(lambda: len(ends) == 2)
    assert ends[0] == (1, "trace error\n")
    assert ends[1][1].endswith("error: error") and ends[1][1].startswith("process 1 on ")


def test_the_cause_goes_before_what_follows_from_it():
    failures = [
        Failure(DEVICE, 1, "collective failed", 0, "a"),
        Failure(REFUSED, 2, "checkpoint not saved", 0, "a"),
        Failure(LOST, 4, "process 3 is gone", 3, "b"),
    ]
    assert cause_of(failures).text == "process 3 is gone"
    assert cause_of(failures[:2]).text == "checkpoint not saved"


@pytest.mark.parametrize(
    "options, words",
    [
        ({"indices": [0, 1, 1], "count": 3}, "there are two processes 1"),
        ({"indices": [0, 2], "count": 3}, "2 of 3 processes have come"),
        ({"count": 2, "words": [["--a"], ["--b"]]}, "start all with the same"),
    ],
)
def test_those_that_cannot_be_one_run_are_told(ends, options, words):
    links, _ = gather(**options, seconds=2.0)
    wait_for(lambda: len(ends) == len(options.get("indices", [0, 1])))
    assert not links and {code for code, _ in ends} == {2}
    (said,) = [line for _, line in ends if line]
    assert words in said


def test_a_stranger_at_the_port_is_not_heard(ends):
    port, links = free_port(), {}

    def come(index):
        links[index] = meet(ProcessPlace(2, index, "127.0.0.1", port, "the test"), [], 20.0)

    threads = [threading.Thread(target=come, args=(i,), daemon=True) for i in range(2)]
    threads[0].start()
    for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100_000, b'{"hello": 3}\n', b'{"stop": 1}\n'):
        with connected(port) as stranger:
            stranger.sendall(sent)
            stranger.shutdown(socket.SHUT_WR)
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert len(links) == 2 and not ends


def test_nobody_there_and_a_port_in_use_are_sentences():
    port = free_port()
    with pytest.raises(ValueError, match=r"Process 0 was not at 127\.0\.0\.1:.* within 0\.3 s"):
        meet(ProcessPlace(2, 1, "127.0.0.1", port, "the test"), [], 0.3)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(ValueError, match=r"cannot be met at .* in use"):
            meet(ProcessPlace(2, 0, "127.0.0.1", port, "the test"), [], 1.0)
    with pytest.raises(ValueError, match="itself, where no other machine can reach it"):
        meet(ProcessPlace(2, 0, "localhost", port, "SLURM", machines=2), [], 1.0)


def test_all_stop_after_one_step_that_none_has_begun_when_it_is_agreed(ends):
    links = met(3)
    stopped, taken = {}, [0, 0, 0]

    def train(index):
        interruption = Interruption(leave=lambda code, line: None)
        interruption.agree_with(links[index])
        for step in range(1, 10_000):
            interruption.begin(step)
            # Nobody is more than five steps ahead: as programs on devices, which need all.
            wait_for(lambda step=step: step - min(taken) < 5)
            taken[index] = step
            interruption.step_done()
            if index == 1 and step == 40:
                interruption.receive(signal.SIGTERM)
            if interruption.stops_after(step):
                stopped[index] = step
                # What follows is for the others.
                taken[index] = 10**6
                return

    threads = [threading.Thread(target=train, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(stopped) == 3 and len(set(stopped.values())) == 1
    assert 41 <= stopped[0] <= 60
    assert not ends


def test_the_flags_of_a_process_are_its_own():
    words = ["--config=a", "--process=1", "--coordinator", "h:1", "-process", "1", "--x", "y"]
    assert _same_words(words) == ["--config=a", "--coordinator", "h:1", "--x", "y"]
    given, seconds = _read_flags([*words, "--processes=2", "--join_seconds=7"])
    assert (given.coordinator, given.processes, given.process, seconds) == ("h:1", 2, 1, 7.0)
    with pytest.raises(ValueError, match="processes: invalid int value: 'two'"):
        _read_flags(["--processes=two"])


def test_lines_are_json_and_short():
    # What the hub reads is at most this long.
    text = json.dumps(Failure(ERROR, 1, "x" * 10**6, 0, "h").to_json())
    assert len(text) < 2**16
    assert Failure.from_json(json.loads(text)).text == "x" * 8000
