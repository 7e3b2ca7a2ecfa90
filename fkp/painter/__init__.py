"""Paint synthetic faces with exact labels of their 68 key points, free to use for anyone.

A face is a pure function of two numbers. Its points are sampled first, from a model of real shapes;
then all that is visible is drawn onto them. Nothing is measured in the finished image.
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

    The result does not depend on which faces were painted before, nor on the machine.

    Args:
        seed: of the whole set.
        index: number of the face in the set.

    Returns:
        the image, RGB (H, W, 3) uint8 with sides of about 150 to 320 pixels; and its points (68, 2)
        float64, x y in IMAGE pixels.
    """
    rng = np.random.default_rng([seed, index])
    size, points = place_face(ShapeModel.load().sample(rng), rng)
    image = paint_background(size, rng)
    paint_person(image, Head(points), rng)
    return photograph(image, rng), points


def place_face(shape: np.ndarray, rng: np.random.Generator) -> tuple[tuple[int, int], np.ndarray]:
    """Choose an image size, and place a shape in it as faces lie in video frames.

    Returns:
        (height, width), and the points (68, 2) in IMAGE pixels.
    """
    # Image size.
    width = rng.uniform(150, 310)
    height = width * np.clip(rng.normal(1.08, 0.08), 0.85, 1.3)
    size = np.clip(np.round([height, width]), 150, 320).astype(int)

    # Roll.
    degrees = rng.uniform(-32, 32) if rng.random() < 0.15 else rng.normal(0, 7.5)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    shape = shape @ np.array([[cosine, sine], [-sine, cosine]])

    # Size and place of the face.
    low, high = shape.min(axis=0), shape.max(axis=0)
    share = (
        rng.uniform(0.24, 0.7)
        if rng.random() < 0.15
        else np.clip(rng.normal(0.43, 0.065), 0.25, 0.65)
    )
    centre = np.clip(rng.normal([0.5, 0.55], [0.06, 0.05]), 0.33, 0.67) * size[::-1]
    scale = share * size[1] / (high[0] - low[0])
    return (int(size[0]), int(size[1])), (shape - (low + high) / 2) * scale + centre


def paint_person(image: np.ndarray, head: Head, rng: np.random.Generator) -> None:
    """Paint the person, from the back to the front, in place."""
    size = image.shape[:2]
    sitter = choose_sitter(rng)
    style = choose_style(rng, sitter)
    ray = choose_light(rng)
    crown = head.project([[style["parting"], -2.3, -1.2]])[0]
    texture = hair_texture(size, crown, head.scale, sitter.hair, rng)

    # From the back to the front.
    if style["long"]:
        paint_long_hair(image, head, style, texture, rng)
    paint_body(image, head, sitter.skin, float(ray[0]), rng)
    paint_head(image, head, sitter, ray, rng)

    hat = rng.random() < 0.08
    glasses = rng.random() < 0.22
    if glasses:
        paint_glasses(image, head, rng)
    if style["thickness"]:
        paint_hair(image, head, style, texture, rng)
    if hat:
        paint_hat(image, head, rng)
    if rng.random() < 0.15:
        paint_occluder(image, head, rng)


def choose_light(rng: np.random.Generator) -> np.ndarray:
    """Choose the direction (3,) towards the main light: mostly above and in front of the face."""
    ray = np.array([rng.normal(0, 0.6), rng.normal(-0.55, 0.4), abs(rng.normal(0.8, 0.3)) + 0.1])
    return ray / np.linalg.norm(ray)


def paint_head(
    image: np.ndarray, head: Head, sitter: Sitter, ray: np.ndarray, rng: np.random.Generator
) -> None:
    """Paint the bare head: its own colours on a canvas of skin, then light, then onto the image."""
    size = image.shape[:2]
    outlines = skin_outline(head)
    mask = fill(size, outlines, max(0.6, 0.02 * head.scale))
    if not mask.opacity.size:
        return

    # The skin and the features, unlit.
    canvas = np.empty_like(image)
    paint_skin(canvas, sitter, head.scale, rng)
    height, width = mask.opacity.shape
    cells = head.canonical_map(mask.columns.start, mask.rows.start, width, height)
    paint_wrinkles(canvas, head, sitter, rng)
    paint_nose(canvas, head, sitter, rng)
    paint_beard(canvas, head, sitter, cells, mask, rng)
    paint_mouth(canvas, head, sitter, rng)
    paint_eyes(canvas, head, sitter, rng)
    paint_brows(canvas, head, sitter, rng)

    # Light.
    light_canvas(canvas, head, mask, cells, ray, rng)

    # The shadow of the chin, and the head on the image.
    chin_shadow = fill(
        size, [outlines[1] + rng.uniform(0.05, 0.3) * head.camera[1]], 0.12 * head.scale
    )
    shade(image, chin_shadow, rng.uniform(0.5, 1.0))
    lay(image, outlines[:1], 0.8, canvas)
    paint_ears(image, head, sitter.skin, float(ray[0]), rng)
    lay(image, outlines[1:], max(0.6, 0.02 * head.scale), canvas)


def light_canvas(
    canvas: np.ndarray,
    head: Head,
    mask: Mask,
    cells: tuple[np.ndarray, np.ndarray],
    ray: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Multiply the canvas under the mask by the light that falls there, and add gloss."""
    light = light_head(head, ray, rng.random(), rng)
    maps = cv2.remap(np.dstack(light), *cells, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    # Colours of the ambient light, the main light and the gloss.
    share = rng.uniform(0.1, 0.8)
    bright = max(float(np.mean(light.key[60:125, 20:95])), 0.25)
    tint = rng.normal(0, 0.04, 3)
    ambient = (1 - share) * (1 - tint) / 0.8
    key = share * (1 + tint) / bright
    gloss = np.full(3, rng.uniform(0, 0.5) * share)

    window = canvas[mask.rows, mask.columns]
    # The three maps, combined to a factor and then to a summand of each colour channel.
    window *= cv2.transform(maps, np.stack([ambient, key, np.zeros(3)], axis=1))
    window += cv2.transform(maps, np.stack([np.zeros(3), np.zeros(3), gloss], axis=1))
