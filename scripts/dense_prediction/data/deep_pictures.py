"""Pictures of more than 8 bits a number, which are neither black nor white before somebody says what is.

Where Pillow keeps all bits: grey of 16 and 32 bits and floats. Of colours it keeps the upper 8 of 16 bits; PNGs are
therefore read by torchvision, and of TIFFs and all others no more is known than these 8.
"""

from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageFile


Range = tuple[float, float]
"""The numbers that become black and white; what lies between them keeps its order, and what lies outside is one of
them."""

GREYS = ("I", "F")
"""Modes of 32-bit numbers, of which nobody knows which one is white."""

DARKEST = 16
"""Of 256 levels. Whose brightest pixel is darker is black to everybody: 12 bits in a file of 16 have less."""

ADVICE = "train with data.intensity=[LOW, HIGH], the numbers that are black and white, or save it with 8 bits"


@dataclass(frozen=True)
class DeepPicture:
    """The numbers of a picture, (H, W) or (H, W, 3)."""

    pixels: np.ndarray

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as Pillow has them."""
        return self.width, self.height

    def to_rgb(self, intensity: Range | None) -> Image.Image:
        """The picture in 8 bits a colour.

        Args:
            intensity: None for all that 16 bits can hold.

        Raises:
            ValueError: it would be black, or there is no telling what is white.
        """
        levels = self._upper_bits() if intensity is None else self._stretched(*intensity)
        return Image.fromarray(levels).convert("RGB")

    def _upper_bits(self) -> np.ndarray:
        if self.pixels.dtype != np.uint16:
            mode = "F" if self.pixels.dtype.kind == "f" else "I"
            raise ValueError(f"its mode is {mode}, 32 bits a pixel: {ADVICE}")
        brightest = int(self.pixels.max(initial=0))
        if 0 < brightest < DARKEST * 256:
            raise ValueError(f"its numbers of 16 bits go up to {brightest} of 65535 and it would be black: {ADVICE}")
        return (self.pixels // 256).astype(np.uint8)

    def _stretched(self, low: float, high: float) -> np.ndarray:
        """(H, W) or (H, W, 3) uint8; what is no number is black."""
        shares = (self.pixels.astype(np.float64) - low) / (high - low)
        return np.nan_to_num(shares.clip(0, 1) * 255).round().astype(np.uint8)


Picture = Image.Image | DeepPicture
"""In RGB, or of more bits than a screen shows."""


def is_grey(image: Image.Image) -> bool:
    """Whether it has one number of more than 8 bits a pixel."""
    return image.mode in GREYS or image.mode.startswith("I;16")


def has_deep_colours(image: ImageFile.ImageFile) -> bool:
    """Whether a picture that was opened, but not loaded, has colours of 16 bits in its file."""
    layers = [layer.args if isinstance(layer.args, str) else layer.args and layer.args[0] for layer in image.tile]
    # A TIFF that keeps its colours apart calls each of them R or G, whatever their bits.
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, ())
    deep = any(";16" in str(layer) for layer in layers) or 16 in np.atleast_1d(bits)
    return deep and not is_grey(image)


def colours_of_png(data: bytes) -> np.ndarray:
    """(H, W, 3) uint16: red, green and blue, or three times grey, of a PNG of 16 bits a colour."""
    import torch  # not at the top: it takes seconds, which nobody shall wait for who asks for help
    from torchvision.io import ImageReadMode, decode_png

    layers = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED).numpy()
    return layers[[0, 0, 0] if len(layers) < 3 else [0, 1, 2]].transpose(1, 2, 0)  # (C, H, W) -> (H, W, 3)


def check_upper_bits(image: Image.Image) -> None:
    """Refuse a picture of 16 bits a colour of which 8 were read, if these are too few to see it.

    Raises:
        ValueError: for it.
    """
    apart = getattr(image, "tag_v2", {}).get(ExifTags.Base.PlanarConfiguration) == 2  # which Pillow garbles
    if apart or np.asarray(image.convert("RGB")).max(initial=0) < DARKEST:
        raise ValueError(f"it has colours of 16 bits, which are not read from a {image.format}: save it as a PNG")
