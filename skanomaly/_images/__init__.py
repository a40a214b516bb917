"""Anything a person calls an image, as an array."""

from skanomaly._images.containers import check_images, iterate_images
from skanomaly._images.files import ImageReadError
from skanomaly._images.reading import (
    content_digest,
    image_size,
    load_image,
    load_with_span,
    read_item,
    viewable_image,
)
from skanomaly._images.resizing import resize_image
from skanomaly._images.values import small_range_message, warn_of_small_range

__all__ = [
    "ImageReadError",
    "check_images",
    "content_digest",
    "image_size",
    "iterate_images",
    "load_image",
    "load_with_span",
    "read_item",
    "resize_image",
    "small_range_message",
    "viewable_image",
    "warn_of_small_range",
]
