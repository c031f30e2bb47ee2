"""The cache of transformers' own tests, which several processes fill at once on a fresh machine."""

import tarfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import Barrier

import pytest

import transformers_sdist
from transformers_sdist import MODULES, SdistUnavailable, cache_folder


WORKERS = 4


def write_archive(folder: Path, modules: tuple[str, ...] = MODULES) -> Path:
    """A source distribution of test modules, each with its own name for content."""
    path = folder / "transformers-0.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in (*modules, "test_of_something_else.py"):
            member = tarfile.TarInfo(f"transformers-0.0/tests/{name}")
            member.size = len(name)
            tar.addfile(member, BytesIO(name.encode()))
    return path


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(transformers_sdist, "download_sdist", write_archive)


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_several_processes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them find nothing, download, and put the same files in the same place."""
    barrier = Barrier(WORKERS, timeout=60)

    def download_together(folder: Path) -> Path:
        archive = write_archive(folder)
        barrier.wait()
        return archive

    monkeypatch.setattr(transformers_sdist, "download_sdist", download_together)
    with ThreadPoolExecutor(WORKERS) as pool:
        folders = [job.result() for job in [pool.submit(transformers_sdist.tests_folder) for _ in range(WORKERS)]]
    assert set(folders) == {cache_folder()}
    assert content(cache_folder()) == {name: name for name in MODULES}


def test_downloaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    transformers_sdist.tests_folder()
    monkeypatch.setattr(transformers_sdist, "download_sdist", None)
    assert content(transformers_sdist.tests_folder()) == {name: name for name in MODULES}


def test_interrupted_before_the_end() -> None:
    """What a process left that was stopped after the first file is no cache."""
    cache_folder().mkdir(parents=True)
    (cache_folder() / MODULES[0]).write_text(MODULES[0])
    assert content(transformers_sdist.tests_folder()) == {name: name for name in MODULES}


def test_interrupted_while_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of the last file leaves no part of it."""
    write_whole = Path.write_bytes

    def write(path: Path, data: bytes) -> None:
        write_whole(path, data[:3] if path.name == MODULES[-1] else data)
        if path.name == MODULES[-1]:
            raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write)
        with pytest.raises(OSError, match="disk full"):
            transformers_sdist.tests_folder()
    assert content(transformers_sdist.tests_folder()) == {name: name for name in MODULES}


def test_archive_of_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_sdist, "download_sdist", lambda folder: write_archive(folder, MODULES[:-1]))
    with pytest.raises(SdistUnavailable, match=rf"transformers-0.0.tar.gz has no tests/{MODULES[-1]}"):
        transformers_sdist.tests_folder()
