"""A server with one data set, some/name, that answers as the Hugging Face hub does."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JSON = {"Content-Type": "application/json"}


class Hub:
    """The files of the data set and their commit."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.commit, self.address = files, "a" * 40, ""

    def answer(self, path: str, wanted: str | None) -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers for a path and a range of bytes."""
        api = "/api/datasets/some/name"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{self.commit}"):
            names = [{"rfilename": name} for name in self.files]
            about = {"_id": "1", "id": "some/name", "sha": self.commit, "private": False, "tags": [], "siblings": names}
            return 200, json.dumps(about | {"downloads": 0, "likes": 0}).encode(), JSON
        if path == f"{api}/tree/{self.commit}":
            entries = [
                {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name}
                for name, content in self.files.items()
            ]
            return 200, json.dumps(entries).encode(), JSON
        content = self.files.get(path.removeprefix(f"/datasets/some/name/resolve/{self.commit}/"))
        if content is None:
            return 404, b"", {"X-Error-Code": "EntryNotFound"}
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": self.commit}
        if wanted is None:
            return 200, content, headers
        first, last = wanted.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last or len(content)) + 1]
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        return 206, part, headers


@contextlib.contextmanager
def served(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *words: object) -> None:
            pass

        def do_GET(self) -> None:
            code, content, headers = hub.answer(self.path.split("?")[0], self.headers.get("Range"))
            self.send_response(code)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
