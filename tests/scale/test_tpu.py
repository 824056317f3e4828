"""Hosts of a TPU pod, as a TPU VM's metadata server tells them; a small server stands in for it."""

import http.server
import threading

import pytest

from deit_jax.scale.tpu import read_pod

ATTRIBUTES = {
    "agent-worker-number": "1",
    "worker-network-endpoints": "unknown:unknown:10.0.0.5,unknown:unknown:10.0.0.6",
    "tpu-env": "ZONE: 'here'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n",
}


class Metadata(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.headers["Metadata-Flavor"] == "Google"
        text = ATTRIBUTES[self.path.rpartition("/")[2]].encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


def cards(folder, device):
    card = folder / "0000:00:04.0"
    card.mkdir()
    (card / "vendor").write_text("0x1ae0\n")
    (card / "device").write_text(device)
    return folder


def test_a_vm_asks_its_server(server, tmp_path):
    pod = read_pod({}, pci=cards(tmp_path, "0x0063\n"))
    assert (pod.count, pod.index, pod.host) == (4, 3, "10.0.0.5")


@pytest.mark.parametrize("environ", [{"TPU_SKIP_MDS_QUERY": "1"}, {"JAX_PLATFORMS": "cuda"}])
def test_nothing_is_asked_where_it_must_not_be(environ, tmp_path):
    def ask(name):
        raise AssertionError("asked")

    assert read_pod(environ, ask, cards(tmp_path, "0x0063\n")) is None


def test_a_google_machine_without_tpus_is_not_asked(tmp_path):
    def ask(name):
        raise AssertionError("asked")

    # Its network card has the same vendor.
    assert read_pod({}, ask, cards(tmp_path, "0x0042\n")) is None
