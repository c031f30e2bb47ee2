"""Pictures of more than 8 bits keep what is to be seen in them, in training as in prediction, or are refused."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import ExifTags, Image
from transformers import AutoImageProcessor

from dense_prediction.batches.options import TransformOptions
from dense_prediction.data.deep_pictures import DeepPicture
from dense_prediction.data.formats.datasets_library import DatasetsOptions
from dense_prediction.data.formats.folders import FoldersOptions
from dense_prediction.data.images import read_rgb
from dense_prediction.data.inspection.findings import describe
from dense_prediction.data.inspection.intensities import Intensities, look_at_intensities
from dense_prediction.data.inspection.looking import inspect
from dense_prediction.data.loading import Data, load_data
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.models.options import HeadOptions
from dense_prediction.models.saved_models import build_processor, intensity_of
from dense_prediction.prediction.image_files import read_image, to_image


SEMANTIC = TASKS["semantic_segmentation"]
TWELVE_BITS = np.array([[0, 1000, 2000], [3000, 4000, 4095]], dtype=np.uint16)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_colours(pixels: np.ndarray, orientation: int | None = None) -> bytes:
    """A PNG of 16 bits a colour, (H, W, 2 to 4), as https://www.w3.org/TR/png/ says; Pillow writes none."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    exif = b"" if orientation is None else chunk(b"eXIf", _exif(orientation))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + exif
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _exif(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", ExifTags.Base.Orientation, 3, 1, orientation, 0) + bytes(4)


def tiff_of_colours(pixels: np.ndarray, apart: bool = False) -> bytes:
    """An uncompressed TIFF of 16 bits a colour, (H, W, 3), as the TIFF 6.0 specification says; Pillow writes none."""
    height, width, _ = pixels.shape
    data = (pixels.transpose(2, 0, 1) if apart else pixels).astype("<u2").tobytes()
    parts = 3 if apart else 1
    tail = 8 + 2 + 12 * 11 + 4
    places = [tail + 6 + 8 * 3 + len(data) // parts * part for part in range(parts)]
    sizes = [len(data) // parts] * parts

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        return struct.pack("<HHII", tag, kind, count, value)

    entries = [
        entry(256, 4, 1, width),
        entry(257, 4, 1, height),
        entry(258, 3, 3, tail),
        entry(259, 3, 1, 1),
        entry(262, 3, 1, 2),
        entry(273, 4, parts, places[0] if parts == 1 else tail + 6),
        entry(277, 3, 1, 3),
        entry(278, 4, 1, height),
        entry(279, 4, parts, sizes[0] if parts == 1 else tail + 18),
        entry(284, 3, 1, 2 if apart else 1),
        entry(339, 3, 1, 1),
    ]
    places = [*places, 0, 0][:3]
    sizes = [*sizes, 0, 0][:3]
    bits = struct.pack("<3H", 16, 16, 16)
    return (
        struct.pack("<2sHI", b"II", 42, 8)
        + struct.pack("<H", len(entries))
        + b"".join(entries)
        + bytes(4)
        + bits
        + struct.pack("<3I3I", *places, *sizes)
        + data
    )


def grey(image: Image.Image) -> list[list[int]]:
    pixels = np.asarray(image)
    assert pixels.shape[2] == 3
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


STRETCHED = [[0, 62, 125], [187, 249, 255]]
"""`TWELVE_BITS` from 0 to 4095 in 8 bits: 1000 / 4095 * 255 is 62.3."""


@pytest.mark.parametrize("name", ["a.png", "a.tif", "big.tif", "signed.tif", "int.tif", "float.tif", "a.jp2"])
def test_the_numbers_between_black_and_white_keep_their_order(name: str, tmp_path: Path) -> None:
    kind = {"signed.tif": np.int32, "int.tif": np.int32, "float.tif": np.float32}.get(name, np.uint16)
    image = Image.fromarray(TWELVE_BITS.astype(kind))
    if name == "big.tif":
        image = Image.frombytes("I;16B", (3, 2), TWELVE_BITS.astype(">u2").tobytes())
    image.save(tmp_path / name, **({"irreversible": False} if name == "a.jp2" else {}))
    assert grey(read_rgb(tmp_path / name, "auto", intensity=(0, 4095))) == STRETCHED
    assert grey(read_image(tmp_path / name, (0, 4095))) == STRETCHED


def test_what_lies_outside_is_black_or_white_and_no_number_is_black() -> None:
    numbers = np.array([[-np.inf, -5, 0], [np.nan, 2, np.inf]], dtype=np.float32)
    assert grey(DeepPicture(numbers).to_rgb((-1, 1))) == [[0, 0, 128], [0, 255, 255]]
    signed = np.array([[-2000, 0, 2000]], dtype=np.int32)
    assert grey(DeepPicture(signed).to_rgb((-2000, 2000))) == [[0, 128, 255]]
    large = np.array([[2**31 - 1, 2**31 - 3]], dtype=np.int32)
    assert grey(DeepPicture(large).to_rgb((2**31 - 3, 2**31 - 1))) == [[255, 0]], "float32 has too few digits"


COLOURS = np.stack([TWELVE_BITS, TWELVE_BITS // 2, TWELVE_BITS[:, ::-1]], axis=-1)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_16_bits(channels: int, tmp_path: Path) -> None:
    """Of which Pillow keeps the upper 8, which are black here; how opaque a pixel is does not count."""
    pixels = np.concatenate([COLOURS, np.full((2, 3, 1), 77, dtype=np.uint16)], axis=-1)[..., :channels]
    (tmp_path / "a.png").write_bytes(png_of_colours(pixels))
    seen = np.asarray(read_rgb(tmp_path / "a.png", "auto", intensity=(0, 4095)))
    expected = np.repeat(COLOURS[..., :1], 3, axis=-1) if channels == 2 else COLOURS
    assert np.array_equal(seen, (expected / 4095 * 255).round())
    with pytest.raises(UserError, match=r"a.png has no colours: its numbers of 16 bits go up to 4095 of 65535"):
        read_rgb(tmp_path / "a.png", "auto")
    (tmp_path / "bright.png").write_bytes(png_of_colours(pixels * 16))
    seen = np.asarray(read_rgb(tmp_path / "bright.png", "auto"))
    assert np.array_equal(seen, expected // 16), "as Pillow has it"


def test_colours_of_16_bits_are_turned_as_others_are(tmp_path: Path) -> None:
    for orientation in range(1, 9):
        (tmp_path / "deep.png").write_bytes(png_of_colours(COLOURS * 16, orientation))
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        Image.fromarray((COLOURS // 16).astype(np.uint8)).save(tmp_path / "flat.png", exif=exif)
        for how in ("upright", "stored"):
            seen = [np.asarray(read_rgb(tmp_path / f"{name}.png", how)) for name in ("deep", "flat")]
            assert np.array_equal(*seen)
        seen = [np.asarray(read_image(tmp_path / f"{name}.png")) for name in ("deep", "flat")]
        assert np.array_equal(*seen)


def test_colours_of_a_tiff_are_seen_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of_colours(COLOURS * 16))
    assert np.array_equal(np.asarray(read_rgb(path, "auto")), COLOURS // 16)
    for dark in (tiff_of_colours(COLOURS), tiff_of_colours(COLOURS * 16, apart=True)):
        path.write_bytes(dark)
        with pytest.raises(
            UserError, match="has no colours: it has colours of 16 bits, which are not read from a TIFF"
        ):
            read_rgb(path, "auto")
        with pytest.raises(UserError, match="cannot read .*a.tif as an image: it has colours of 16 bits"):
            read_image(path)


def test_black_is_refused_and_what_is_black_in_itself_is_not(tmp_path: Path) -> None:
    Image.fromarray(TWELVE_BITS).save(tmp_path / "a.png")
    message = r"up to 4095 of 65535 and it would be black: train with data.intensity=\[LOW, HIGH\]"
    for read in (lambda path: read_rgb(path, "auto"), read_image):
        with pytest.raises(UserError, match=message):
            read(tmp_path / "a.png")
    Image.fromarray(TWELVE_BITS * 0).save(tmp_path / "a.png")
    assert grey(read_image(tmp_path / "a.png")) == [[0] * 3] * 2
    eight = Image.fromarray((TWELVE_BITS // 256).astype(np.uint8))
    eight.save(tmp_path / "b.png")
    assert grey(read_rgb(tmp_path / "b.png", "auto", intensity=(0, 4095))) == grey(read_image(tmp_path / "b.png"))


def write_folders(root: Path, pictures: list[np.ndarray], **options: Any) -> FoldersOptions:
    for split in ("train", "validation"):
        for part in ("images", "masks"):
            (root / part / split).mkdir(parents=True, exist_ok=True)
        for index, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(root / "images" / split / f"{index}.tif")
            ids = np.zeros(pixels.shape, dtype=np.uint8)
            ids[:, 1:] = 1
            Image.fromarray(ids).save(root / "masks" / split / f"{index}.png")
    places = {part: {split: f"{part}/{split}" for split in ("train", "validation")} for part in ("images", "masks")}
    return FoldersOptions(path=str(root), labels=["a", "b"], **places, **options)


def found(options: FoldersOptions) -> tuple[Data, Any]:
    data = load_data(options, SEMANTIC)
    return data, inspect(options, SEMANTIC, data, ("train_split", "validation_split"))


def ramp(low: float, high: float, kind: type = np.uint16) -> np.ndarray:
    """20 x 50 numbers, each once."""
    return np.linspace(low, high, 1000).reshape(20, 50).astype(kind)


def test_the_training_pictures_say_what_is_black_and_white(tmp_path: Path) -> None:
    """Ten numbers of a thousand are outside of the percentiles, half of them a broken pixel's."""
    pixels = ramp(1000, 2000)
    pixels[0, :3] = 65535
    options = write_folders(tmp_path, [pixels, pixels])
    data, inspection = found(options)
    low, high = np.percentile(pixels, (0.5, 99.5)).tolist()
    assert 1000 < low < 1010
    assert 1990 < high < 2000
    assert inspection.options.intensity == pytest.approx((low, high), rel=1e-5)
    assert inspection.intensities == Intensities(
        pictures=2,
        deep=2,
        kind="16 bits",
        lowest=1003,
        highest=65535,
        low=inspection.options.intensity[0],
        high=inspection.options.intensity[1],
    )
    (line,) = [line for line in describe(inspection, options, data.labels) if "intensity" in line]
    assert line.startswith("pictures of 16 bits hold 1003 to 65535 (2 were looked at): ")
    image = load_data(inspection.options, SEMANTIC).train[0]["image"]
    assert image[0, 0, 3] == 0
    assert image[0, -1, -1] == 255
    assert 120 < image[0, 10, 0] < 136


def test_the_whole_range_or_a_given_one(tmp_path: Path) -> None:
    pixels = ramp(-3, 5, np.float32)
    pixels[3, 3] = np.nan
    pixels[3, 4] = np.inf
    _, inspection = found(write_folders(tmp_path, [pixels], intensity="range"))
    assert inspection.options.intensity == (-3, 5)
    assert inspection.intensities.kind == "floats"
    _, inspection = found(write_folders(tmp_path, [pixels], intensity=[0, 2]))
    assert inspection.options.intensity == (0, 2)
    _, inspection = found(write_folders(tmp_path, [np.full((20, 50), 7, dtype=np.uint16)]))
    assert inspection.options.intensity == (7, 8), "of one number alone"


def test_pictures_of_8_bits_have_no_intensity(tmp_path: Path) -> None:
    options = write_folders(tmp_path, [ramp(10, 200, np.uint8)] * 3)
    data, inspection = found(options)
    assert inspection.options == options
    assert (inspection.intensities.kind, inspection.intensities.deep) == ("8 bits", 0)
    assert (inspection.intensities.lowest, inspection.intensities.highest) == (10, 200)
    assert not [line for line in describe(inspection, options, data.labels) if "intensity" in line]


@pytest.mark.parametrize("value", [[5, 5], [9, 2], [0, float("inf")], "percent", [1]])
def test_a_range_that_is_none(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="intensity"):
        write_folders(tmp_path, [], intensity=value)


def test_rows_and_streams(tmp_path: Path) -> None:
    pixels = ramp(0, 4095)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    row = {"image": {"bytes": data.getvalue(), "path": None}, "label": (pixels > 2000).astype(int).tolist()}
    for split in ("train", "validation"):
        datasets.Dataset.from_list([row] * 3).to_parquet(tmp_path / f"{split}-0.parquet")
    for streaming in (False, True):
        options = DatasetsOptions(path=str(tmp_path), labels=["a", "b"], streaming=streaming)
        data_of = load_data(options, SEMANTIC)
        intensities = look_at_intensities(data_of.train)
        assert (intensities.pictures, intensities.deep, intensities.highest) == (3, 3, 4095)
        inspection = inspect(options, SEMANTIC, data_of, ("train_split",))
        assert inspection.options.intensity == pytest.approx(np.percentile(pixels, (0.5, 99.5)), rel=1e-5)
        image = load_data(inspection.options, SEMANTIC).train[0]["image"]
        assert (image[0, 0, 0], image[0, -1, -1]) == (0, 255)


def test_a_model_keeps_its_intensity(tmp_path: Path) -> None:
    transforms = TransformOptions(crop_size=(32, 32))
    build_processor(HeadOptions(name="upernet"), transforms, (20.5, 4075)).save_pretrained(tmp_path)
    assert intensity_of(AutoImageProcessor.from_pretrained(tmp_path)) == (20.5, 4075)
    assert intensity_of(build_processor(HeadOptions(name="upernet"), transforms)) is None


def test_arrays_and_pictures_of_pil(tmp_path: Path) -> None:
    for numbers in (TWELVE_BITS, TWELVE_BITS.astype(np.float32), TWELVE_BITS.astype(np.int64)):
        assert grey(to_image(numbers, (0, 4095))) == STRETCHED
    assert grey(to_image(Image.fromarray(TWELVE_BITS), (0, 4095))) == STRETCHED
    with pytest.raises(UserError, match="type uint16 is no picture"):
        to_image(TWELVE_BITS)
    (tmp_path / "a.png").write_bytes(png_of_colours(COLOURS))
    with Image.open(tmp_path / "a.png") as image, pytest.raises(UserError, match="give its file, or an array"):
        to_image(image, (0, 4095))
