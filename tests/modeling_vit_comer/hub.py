"""A Hub of one's own: model folders over HTTP, with what huggingface_hub asks for when it loads a model."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubHandler(BaseHTTPRequestHandler):
    """Serves the folders `root/<organisation>/<name>` as model repositories with one commit."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args, root: Path) -> None:
        self.root = root
        super().__init__(*args)

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            self.answer_api("/".join(parts[2:4]), parts[4:])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self.answer_file(self.root.joinpath(*parts[:2], *parts[4:]))
        else:
            self.answer(404, b"")

    do_HEAD = do_GET

    def answer_api(self, repo_id: str, rest: list[str]) -> None:
        files = sorted(path.name for path in self.root.joinpath(repo_id).glob("*"))
        if not files:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif rest[:1] in ([], ["revision"]):
            info = {
                "id": repo_id,
                "sha": COMMIT,
                "private": False,
                "siblings": [{"rfilename": name} for name in files],
            }
            self.answer(200, json.dumps(info).encode())
        else:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    def answer_file(self, path: Path) -> None:
        if path.is_file():
            content = path.read_bytes()
            etag = hashlib.sha256(content).hexdigest()
            self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args) -> None:
        pass


@contextmanager
def serve_hub(root: Path) -> Iterator[str]:
    """Run the server; gives its address, for `HF_ENDPOINT`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(HubHandler, root=root))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
