"""A Hub of one's own: repositories over HTTP, with what huggingface_hub asks for when it loads or uploads files.

It keeps everything in memory. It speaks git LFS and not Xet, which clients have to do without (`HF_HUB_DISABLE_XET`).
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


LFS_ENDINGS = (".safetensors", ".so")
TOKEN = "hf_of_the_tests"
TREE = dict[str, str]
"""The files of a commit: the SHA-256 of the content by path."""


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, TREE] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, tree: TREE) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(tree.items())}".encode()).hexdigest()
        self.commits[sha] = tree
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        """The commit of a branch, a pull request or a commit."""
        sha = self.branches.get(revision, revision)
        return sha if sha in self.commits else None

    def files(self, branch: str = "main") -> TREE:
        return self.commits[self.branches[branch]]


@dataclass
class Hub:
    """Its state, which tests look into.

    Attributes:
        repositories: by type, organisation and name: `models/org/name`.
        blobs: contents by their SHA-256.
        requests: method and path of each request.
        refuse_uploads: what decides by its size whether a large file is refused.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    refuse_uploads: Callable[[int], bool] = lambda size: False
    lock: Any = field(default_factory=Lock)

    def add_folders(self, root: Path) -> None:
        """The folders `root/<organisation>/<name>` become repositories."""
        for folder in (path for path in root.glob("*/*") if path.is_dir()):
            files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
            repository = self.repositories.setdefault(f"models/{folder.relative_to(root).as_posix()}", Repository())
            repository.commit("main", {name: self.store(path.read_bytes()) for name, path in files.items()})

    def store(self, content: bytes) -> str:
        oid = hashlib.sha256(content).hexdigest()
        self.blobs[oid] = content
        return oid

    def uploaded(self) -> list[str]:
        """The SHA-256 of each large file that was sent, in order."""
        return [path.removeprefix("/lfs/") for method, path in self.requests if method == "PUT"]


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, error_code: str = "", message: str = "", content: Any = None) -> None:
        self.status, self.error_code, self.message, self.content = status, error_code, message, content


NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
API = rf"/api/(?P<kind>models|kernels)/{NAME}"


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args, hub: Hub) -> None:
        self.hub = hub
        super().__init__(*args)

    def do(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append((self.command, url.path))
        try:
            with self.hub.lock:
                self.route(url.path)
        except Refused as refusal:
            headers = {"X-Error-Code": refusal.error_code, "X-Error-Message": refusal.message}
            self.answer(refusal.status, json.dumps(refusal.content or {}).encode(), headers)

    do_GET = do_HEAD = do_POST = do_PUT = do

    def route(self, path: str) -> None:
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == self.command.replace("HEAD", "GET"):
                if method != "GET" and not path.startswith("/lfs/"):
                    self.check_token()
                return action(self, **{name: unquote(value) for name, value in match.groupdict().items() if value})
        raise Refused(404, "EntryNotFound")

    def check_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, message="Invalid credentials in Authorization header")

    def repository(self, kind: str, name: str) -> Repository:
        repository = self.hub.repositories.get(f"{kind}/{name}")
        has_token = self.headers.get("Authorization") is not None
        if repository is None or (repository.private and not has_token):
            raise Refused(404 if has_token else 401, "RepoNotFound")
        return repository

    def tree(self, kind: str, name: str, revision: str) -> tuple[str, TREE]:
        repository = self.repository(kind, name)
        sha = repository.find(revision)
        if sha is None:
            raise Refused(404, "RevisionNotFound")
        return sha, repository.commits[sha]

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        sha, tree = self.tree(kind, name, revision)
        files = [{"rfilename": path} for path in sorted(tree)]
        private = self.repository(kind, name).private
        self.answer_json({"id": name, "sha": sha, "private": private, "siblings": files})

    def list_tree(self, kind: str, name: str, revision: str, folder: str = "") -> None:
        _, tree = self.tree(kind, name, revision)
        prefix = folder and f"{folder}/"
        is_recursive = self.query.get("recursive", ["false"])[0].lower() in ("1", "true")
        entries = {}
        for path, oid in tree.items():
            first, *below = path.removeprefix(prefix).split("/")
            if path.startswith(prefix) and (is_recursive or not below):
                entries[path] = {"type": "file", "path": path, "oid": oid, "size": len(self.hub.blobs[oid])}
            elif path.startswith(prefix):
                entries[prefix + first] = {"type": "directory", "path": prefix + first, "oid": ""}
        self.answer_json(list(entries.values()))

    def list_refs(self, kind: str, name: str) -> None:
        branches = self.repository(kind, name).branches.items()
        refs = [{"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": sha} for branch, sha in branches]
        self.answer_json({"branches": refs, "converts": [], "tags": []})

    def resolve(self, name: str, revision: str, path: str, kind: str = "models") -> None:
        sha, tree = self.tree(kind, name, revision)
        if path not in tree:
            raise Refused(404, "EntryNotFound")
        self.answer(200, self.hub.blobs[tree[path]], {"ETag": f'"{tree[path]}"', "X-Repo-Commit": sha})

    def create_repository(self) -> None:
        wanted = json.loads(self.body)
        name = f"{wanted['organization'] or 'me'}/{wanted['name']}"
        key = f"{wanted.get('type') or 'model'}s/{name}"
        prefix = "" if key.startswith("models/") else "kernels/"
        answer = {"url": f"http://{self.headers['Host']}/{prefix}{name}", "name": name}
        if wanted["organization"] == "others":
            raise Refused(403, message="You don't have the rights to create a model under this namespace")
        if key in self.hub.repositories:
            raise Refused(409, message="You already created this model repo", content=answer)
        repository = self.hub.repositories[key] = Repository(private=wanted.get("visibility") == "private")
        repository.commit("main", {".gitattributes": self.hub.store(b"*.safetensors filter=lfs\n")})
        self.answer_json(answer)

    def create_branch(self, kind: str, name: str, branch: str) -> None:
        repository = self.repository(kind, name)
        if branch in repository.branches:
            raise Refused(409, message="Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        self.answer_json({})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        self.tree(kind, name, revision)
        files = [file["path"] for file in json.loads(self.body)["files"]]
        modes = [
            {"path": path, "uploadMode": "lfs" if path.endswith(LFS_ENDINGS) else "regular", "shouldIgnore": False}
            for path in files
        ]
        self.answer_json({"files": modes})

    def lfs_batch(self, name: str, kind: str = "models") -> None:
        """Says where to send what is not here yet."""
        self.repository(kind, name)
        objects = json.loads(self.body)["objects"]
        for wanted in objects:
            if wanted["oid"] not in self.hub.blobs:
                href = f"http://{self.headers['Host']}/lfs/{wanted['oid']}"
                wanted["actions"] = {"upload": {"href": href, "header": {}}}
        self.answer_json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        if self.hub.refuse_uploads(len(self.body)):
            raise Refused(400, message="the connection was lost")
        if self.hub.store(self.body) != oid:
            raise Refused(400, message="not the content that was announced")
        self.answer(200, b"")

    def commit(self, kind: str, name: str, revision: str) -> None:
        repository = self.repository(kind, name)
        _, tree = self.tree(kind, name, revision)
        tree = dict(tree)
        for operation in (json.loads(line) for line in self.body.splitlines()):
            value = operation["value"]
            match operation["key"]:
                case "file":
                    tree[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
                case "lfsFile" if value["oid"] in self.hub.blobs:
                    tree[value["path"]] = value["oid"]
                case "deletedFile":
                    del tree[value["path"]]
                case "header":
                    pass
                case key:
                    raise Refused(400, message=f"cannot {key} {value}")
        self.answer_commit(repository, f"http://{self.headers['Host']}/{name}", revision, tree)

    def answer_commit(self, repository: Repository, url: str, revision: str, tree: TREE) -> None:
        is_proposal = "create_pr" in self.query
        number = 1 + sum(branch.startswith("refs/pr/") for branch in repository.branches)
        sha = repository.commit(f"refs/pr/{number}" if is_proposal else revision, tree)
        answer = {"commitUrl": f"{url}/commit/{sha}", "commitOid": sha}
        self.answer_json(answer | ({"pullRequestUrl": f"{url}/discussions/{number}"} if is_proposal else {}))

    def validate_card(self) -> None:
        if not json.loads(self.body)["content"].startswith("---\n"):
            raise Refused(400, message="empty metadata")
        self.answer_json({})

    def answer_json(self, content: Any) -> None:
        self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args) -> None:
        pass


REVISION = r"(?P<revision>[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", API, HubHandler.info),
    ("GET", f"{API}/revision/{REVISION}", HubHandler.info),
    ("GET", rf"{API}/tree/{REVISION}(?:/(?P<folder>.+))?", HubHandler.list_tree),
    ("GET", f"{API}/refs", HubHandler.list_refs),
    ("GET", rf"/(?:(?P<kind>kernels)/)?{NAME}/resolve/{REVISION}/(?P<path>.+)", HubHandler.resolve),
    ("POST", "/api/repos/create", HubHandler.create_repository),
    ("POST", "/api/validate-yaml", HubHandler.validate_card),
    ("POST", rf"{API}/branch/(?P<branch>[^/]+)", HubHandler.create_branch),
    ("POST", f"{API}/preupload/{REVISION}", HubHandler.preupload),
    ("POST", f"{API}/commit/{REVISION}", HubHandler.commit),
    ("POST", rf"/(?:(?P<kind>kernels)/)?{NAME}\.git/info/lfs/objects/batch", HubHandler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", HubHandler.lfs_upload),
]


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """Run the server; gives its address, for `HF_ENDPOINT`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(HubHandler, hub=hub))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serve_hub(root: Path) -> Iterator[str]:
    """Serve the folders `root/<organisation>/<name>` as model repositories."""
    hub = Hub()
    hub.add_folders(root)
    with serve(hub) as endpoint:
        yield endpoint
