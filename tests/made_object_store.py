"""An S3-compatible server on this machine that notes what it is asked."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from rayprune.results import storage


@dataclass(frozen=True)
class Request:
    """One request, and how many bytes it moved."""

    method: str
    path: str
    """/bucket/path of the object."""
    is_copy: bool
    uploaded: int
    downloaded: int


@dataclass
class ObjectStore:
    """The server; as a WSGI application it passes on to moto what it has noted."""

    uri: str = "s3://bucket"
    latency_s: float = 0.0
    """Waited before each answer."""
    errors: list[str] = field(default_factory=list)
    """Answered first, one each: "503 SlowDown"."""
    requests: list[Request] = field(default_factory=list)
    """Since somebody last cleared them."""
    _app: Any = field(default_factory=lambda: DomainDispatcherApplication(create_backend_app))

    def methods(self) -> Counter[str]:
        """Number of requests of each method; COPY is a PUT that copies."""
        return Counter("COPY" if r.is_copy else r.method for r in self.requests)

    def said(self) -> str:
        """Requests and bytes in a line."""
        up, down = (sum(getattr(r, n) for r in self.requests) for n in ("uploaded", "downloaded"))
        return f"{dict(self.methods())}, {up:,} bytes up, {down:,} bytes down"

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        time.sleep(self.latency_s)
        size = environ.get("HTTP_X_AMZ_DECODED_CONTENT_LENGTH") or environ.get("CONTENT_LENGTH")
        if self.errors:
            status = self.errors.pop()
            body = f"<Error><Code>{status.partition(' ')[2]}</Code></Error>".encode()
            headers = [("Content-Type", "application/xml"), ("Connection", "close")]
            start_response(status, headers)
            return [body]
        answer = b"".join(self._app(environ, start_response))
        request = Request(
            method=environ["REQUEST_METHOD"],
            path=environ["PATH_INFO"],
            is_copy="HTTP_X_AMZ_COPY_SOURCE" in environ,
            uploaded=int(size or 0),
            downloaded=len(answer) if environ["REQUEST_METHOD"] == "GET" else 0,
        )
        self.requests.append(request)
        return [answer]


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections, as S3 does

    def log(self, *args: object) -> None:
        """Nothing."""


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Run the server, with a bucket, and let s3:// be there."""
    store = ObjectStore()
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=_Quiet)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.port}"
    fields = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "made",
        "AWS_SECRET_ACCESS_KEY": "made",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
    storage._open_bucket.cache_clear()  # a client keeps the endpoint that it was made with
    try:
        with patch.dict(os.environ, fields):
            make = urllib.request.Request(f"{endpoint}/bucket", method="PUT")
            urllib.request.urlopen(make).close()
            store.requests.clear()
            yield store
    finally:
        storage._open_bucket.cache_clear()
        server.shutdown()
