"""A server that alerts are sent to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any


@contextmanager
def webhook() -> Iterator[list[dict[str, Any]]]:
    """Have alerts sent to a server of this process; yield what it gets."""
    received: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing: the path is a secret."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        os.environ["MMLORA_ALERTS__WEBHOOK"] = f"http://127.0.0.1:{server.server_port}/secret-path"
        yield received
        server.shutdown()
