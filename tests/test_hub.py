"""A hub is asked once, and briefly."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from semaphone import hub
from semaphone.errors import InputError

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def server(monkeypatch):
    """Starts a hub that answers every question with a status."""
    running = []

    def start(status: int) -> None:
        class Answer(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                pass

        running.append(HTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{running[-1].server_port}")

    yield start
    for one in running:
        one.shutdown()
        one.server_close()


@pytest.mark.parametrize(("status", "expected"), [(200, True), (404, True), (503, False)])
def test_a_hub_answers_or_not(server, status, expected):
    server(status)
    assert hub.hub_answers() is expected


def test_a_silent_hub_is_one_quick_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    begin = time.monotonic()
    for name in ("someone/something", "/nowhere/at/all", "no: name"):
        with pytest.raises(InputError, match="hub does not answer"):
            hub.local_only(name, "Seamless")
    assert time.monotonic() - begin < 10.0
    monkeypatch.setattr(hub, "_cached", lambda name: name == "someone/something")
    assert hub.local_only("someone/something", "Seamless")
    assert hub.local_only(str(tmp_path), "Seamless")


def test_a_hub_that_answers_is_used(server):
    server(200)
    assert not hub.local_only("someone/something", "Seamless")
