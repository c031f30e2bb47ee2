"""Zip files: unpacked once, and nothing that leads out, links, or fills the disk."""

import stat
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import constants

from dense_prediction.data import archives
from dense_prediction.data.archives import cache_folder, unpack
from dense_prediction.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    return cache_folder()


def pack(file: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return file


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_persons_have_packed(tmp_path: Path, cache: Path) -> None:
    members = {"set/images/a b.png": "1", "set/data.yaml": "2", "__MACOSX/set/._a.png": "3", "set/.DS_Store": "4"}
    folder = unpack(pack(tmp_path / "my set.zip", members | {"set\\labels\\a.txt": "5", "./b.txt": "6"}))
    assert folder.parent == cache == tmp_path / "cache" / "vit_comer" / "archives"
    assert folder.name.startswith("my_set-")
    assert files_in(folder) == ["b.txt", "set/data.yaml", "set/images/a b.png", "set/labels/a.txt"]
    assert (folder / "set" / "labels" / "a.txt").read_text() == "5"


def test_the_same_file_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = unpack(pack(tmp_path / "a.zip", {"a.txt": "1"}))
    (tmp_path / "elsewhere").mkdir()
    with monkeypatch.context() as context:
        context.setattr(archives, "_extract", None)
        assert unpack(pack(tmp_path / "elsewhere" / "a.zip", {"a.txt": "1"})) == first
    second = unpack(pack(tmp_path / "a.zip", {"a.txt": "2"}))
    assert second != first and (second / "a.txt").read_text() == "2" and (first / "a.txt").read_text() == "1"


@pytest.mark.parametrize("name", ["../a.txt", "b/../../a.txt", "/a.txt", "C:/a.txt", "..\\a.txt", "~/a.txt"])
def test_members_that_lead_out(name: str, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UserError, match="its member .*a.txt' leads out of the folder: pack it anew"):
        unpack(pack(tmp_path / "a.zip", {"good.txt": "1", name: "2"}))
    assert not cache.exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO])
def test_members_that_are_no_files(kind: int, tmp_path: Path, cache: Path) -> None:
    member = zipfile.ZipInfo("a")
    member.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, "/etc")
    with pytest.raises(UserError, match="its member 'a' is a link or no file: pack the file itself"):
        unpack(tmp_path / "a.zip")
    assert not cache.exists()


def test_sizes_that_no_data_set_has(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pack(tmp_path / "a.zip", {"a.txt": "0" * 2**20})
    monkeypatch.setattr(archives, "FREE_RATIO", 2**19)
    with pytest.raises(UserError, match="would become 1,048,576 bytes of 1,0.. *: that is no data set"):
        unpack(file)
    monkeypatch.undo()
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(archives, "KEPT_FREE", 2**62)
    with pytest.raises(UserError, match="needs 1,048,576 bytes, and .*archives has .* left; set HF_HOME elsewhere"):
        unpack(file)
    monkeypatch.setattr(archives, "MOST_MEMBERS", 0)
    with pytest.raises(UserError, match="holds 1 files, at most 0 are unpacked"):
        unpack(file)


def test_files_that_are_damaged(tmp_path: Path, cache: Path) -> None:
    whole = pack(tmp_path / "a.zip", {"a.txt": "abcdefgh" * 99}).read_bytes()
    for damaged in (whole[:50], b"", b"PK", whole.replace(b"PK\x01\x02", b"PK\x01\x03")):
        (tmp_path / "a.zip").write_bytes(damaged)
        with pytest.raises(UserError, match="a.zip is no zip file that can be read: "):
            unpack(tmp_path / "a.zip")
    middle = whole.index(b"a.txt") + 8
    (tmp_path / "a.zip").write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(UserError, match="a.zip is no zip file that can be read: "):
        unpack(tmp_path / "a.zip")
    assert files_in(cache) == [], "nothing is left of what could not be unpacked"


def test_a_password(tmp_path: Path) -> None:
    data = bytearray(pack(tmp_path / "a.zip", {"a.txt": "1"}).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UserError, match="a.zip is no zip file that can be read: .*encrypted"):
        unpack(tmp_path / "a.zip")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="a.zip cannot be unpacked into .*archives: Not a directory"):
        unpack(pack(tmp_path / "a.zip", {"a.txt": "1"}))
