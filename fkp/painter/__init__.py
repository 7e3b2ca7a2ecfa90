"""Faces that the project paints itself, so that their 68 key points are exact and anyone may have them.

A face is a pure function of two numbers. Its points come first, from a model of real shapes; everything visible is then
drawn onto them: nothing is measured from the finished picture.
"""

import cv2
import numpy as np

from fkp.painter.brushes import Mask, fill, lay, shade
from fkp.painter.features import (
    paint_beard,
    paint_brows,
    paint_eyes,
    paint_mouth,
    paint_nose,
    paint_skin,
    paint_wrinkles,
)
from fkp.painter.hair import (
    choose_style,
    hair_texture,
    paint_ears,
    paint_glasses,
    paint_hair,
    paint_hat,
    paint_long_hair,
    skin_outline,
)
from fkp.painter.relief import Head, light_head
from fkp.painter.scenery import paint_background, paint_body, paint_occluder, photograph
from fkp.painter.shape_model import ShapeModel
from fkp.painter.sitter import Sitter, choose_sitter


def paint(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Paint one face.

    Arguments:
        seed: names the whole set.
        index: the face's number in it.

    Returns:
        the picture, RGB uint8 (height, width, 3) with sides of about 150 to 320 pixels, and its 68 points (68, 2)
        float64, x y in IMAGE pixels. The same bytes whenever, wherever and in whatever order faces are painted.
    """
    rng = np.random.default_rng([seed, index])
    size, points = place_face(ShapeModel.load().sample(rng), rng)
    picture = paint_background(size, rng)
    paint_person(picture, Head(points), rng)
    return photograph(picture, rng), points


def place_face(shape: np.ndarray, rng: np.random.Generator) -> tuple[tuple[int, int], np.ndarray]:
    """A picture's (height, width) and the shape's place in it, (68, 2) pixels, as faces lie in video frames."""
    width = rng.uniform(150, 310)
    height = width * np.clip(rng.normal(1.08, 0.08), 0.85, 1.3)
    size = np.clip(np.round([height, width]), 150, 320).astype(int)
    degrees = rng.uniform(-32, 32) if rng.random() < 0.15 else rng.normal(0, 7.5)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    shape = shape @ np.array([[cosine, sine], [-sine, cosine]])
    low, high = shape.min(axis=0), shape.max(axis=0)
    share = (
        rng.uniform(0.24, 0.7)
        if rng.random() < 0.15
        else np.clip(rng.normal(0.43, 0.065), 0.25, 0.65)
    )
    centre = np.clip(rng.normal([0.5, 0.55], [0.06, 0.05]), 0.33, 0.67) * size[::-1]
    scale = share * size[1] / (high[0] - low[0])
    return (int(size[0]), int(size[1])), (shape - (low + high) / 2) * scale + centre


def paint_person(picture: np.ndarray, head: Head, rng: np.random.Generator) -> None:
    """Everything that belongs to the person, from the back to the front."""
    size = picture.shape[:2]
    sitter = choose_sitter(rng)
    style = choose_style(rng, sitter)
    ray = choose_light(rng)
    crown = head.project([[style["parting"], -2.3, -1.2]])[0]
    texture = hair_texture(size, crown, head.scale, sitter.hair, rng)
    if style["long"]:
        paint_long_hair(picture, head, style, texture, rng)
    paint_body(picture, head, sitter.skin, float(ray[0]), rng)
    paint_head(picture, head, sitter, ray, rng)
    hat = rng.random() < 0.08
    glasses = rng.random() < 0.22
    if glasses:
        paint_glasses(picture, head, rng)
    if style["thickness"]:
        paint_hair(picture, head, style, texture, rng)
    if hat:
        paint_hat(picture, head, rng)
    if rng.random() < 0.15:
        paint_occluder(picture, head, rng)


def choose_light(rng: np.random.Generator) -> np.ndarray:
    """The direction towards the main light: mostly from above and from before the face."""
    ray = np.array([rng.normal(0, 0.6), rng.normal(-0.55, 0.4), abs(rng.normal(0.8, 0.3)) + 0.1])
    return ray / np.linalg.norm(ray)


def paint_head(
    picture: np.ndarray, head: Head, sitter: Sitter, ray: np.ndarray, rng: np.random.Generator
) -> None:
    """The bare head: painted in its own colours on a canvas of skin, then lit, then laid on the picture."""
    size = picture.shape[:2]
    outlines = skin_outline(head)
    mask = fill(size, outlines, max(0.6, 0.02 * head.scale))
    if not mask.opacity.size:
        return
    canvas = np.empty_like(picture)
    paint_skin(canvas, sitter, head.scale, rng)
    height, width = mask.opacity.shape
    cells = head.canonical_map(mask.columns.start, mask.rows.start, width, height)
    paint_wrinkles(canvas, head, sitter, rng)
    paint_nose(canvas, head, sitter, rng)
    paint_beard(canvas, head, sitter, cells, mask, rng)
    paint_mouth(canvas, head, sitter, rng)
    paint_eyes(canvas, head, sitter, rng)
    paint_brows(canvas, head, sitter, rng)
    light_canvas(canvas, head, mask, cells, ray, rng)
    chin_shadow = fill(
        size, [outlines[1] + rng.uniform(0.05, 0.3) * head.camera[1]], 0.12 * head.scale
    )
    shade(picture, chin_shadow, rng.uniform(0.5, 1.0))
    lay(picture, outlines[:1], 0.8, canvas)
    paint_ears(picture, head, sitter.skin, float(ray[0]), rng)
    lay(picture, outlines[1:], max(0.6, 0.02 * head.scale), canvas)


def light_canvas(
    canvas: np.ndarray,
    head: Head,
    mask: Mask,
    cells: tuple[np.ndarray, np.ndarray],
    ray: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Multiply the canvas under the mask with the light that falls there, and add the skin's gloss."""
    light = light_head(head, ray, rng.random(), rng)
    maps = cv2.remap(np.dstack(light), *cells, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    share = rng.uniform(0.1, 0.8)
    bright = max(float(np.mean(light.key[60:125, 20:95])), 0.25)
    tint = rng.normal(0, 0.04, 3)
    ambient = (1 - share) * (1 - tint) / 0.8
    key = share * (1 + tint) / bright
    gloss = np.full(3, rng.uniform(0, 0.5) * share)
    window = canvas[mask.rows, mask.columns]
    # From the three maps to what each colour channel is multiplied with, then to what is added to it.
    window *= cv2.transform(maps, np.stack([ambient, key, np.zeros(3)], axis=1))
    window += cv2.transform(maps, np.stack([np.zeros(3), np.zeros(3), gloss], axis=1))
