"""Paint what is fixed to a head in three dimensions: skull, ears, hair, hats and glasses."""

from functools import cache

import cv2
import numpy as np

from fkp.painter.brushes import Mask, blend, curve, draw_inside, fill, lay, noise, ribbon, shade
from fkp.painter.relief import Head, resting_points
from fkp.painter.scenery import random_colour
from fkp.painter.sitter import Sitter

SKULL_CENTRE = np.array([0.0, -1.12, -1.95])
SKULL_RADII = np.array([1.36, 1.5, 1.62])

# The part of the nose that stands out.
NOSE = np.array([[0, -0.4, -0.08], [0, -0.12, 0.12], [0, 0.0, 0.14], [0, 0.08, 0.02]])
FOREHEAD = np.array(
    [
        [-1.0, -1.5, -0.85],
        [1.0, -1.5, -0.85],
        [-0.6, -2.0, -0.85],
        [0.6, -2.0, -0.85],
        [0, -2.2, -0.95],
        [-1.2, -1.1, -1.05],
        [1.2, -1.1, -1.05],
    ]
)


@cache
def ball() -> np.ndarray:
    """Return evenly spread points of the unit sphere (200, 3): Fibonacci's spiral."""
    number = 200
    height = 1 - 2 * (np.arange(number) + 0.5) / number
    angle = np.pi * (1 + 5**0.5) * np.arange(number)
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(angle), height, ring * np.sin(angle)], axis=1)


def hull(points: np.ndarray) -> np.ndarray:
    """Return the convex hull (M, 2) of points (N, 2)."""
    return cv2.convexHull(points.astype(np.float32))[:, 0].astype(float)


def skin_outline(head: Head) -> list[np.ndarray]:
    """Return polygons whose union is the bare head: the skull, and the face down to the jaw."""
    skull = head.project(SKULL_CENTRE + SKULL_RADII * ball())
    top = np.concatenate([head.project(FOREHEAD), head.points[[0, 1, 15, 16, 17, 18, 25, 26]]])
    jaw = np.concatenate([curve(jaw_skin(head)), head.project(FOREHEAD)[[6, 1, 3, 4, 2, 0, 5]]])
    # In profile, nose, lips and chin stand out beyond the contour of the far side.
    nose = np.concatenate([head.points[27:36], head.project(NOSE)])
    profile = [hull(nose), hull(head.points[48:60])]
    return [hull(np.concatenate([skull, top])), jaw, *profile]


def jaw_skin(head: Head) -> np.ndarray:
    """Return where the skin ends along the jaw, (17, 2): a little inside of real labels."""
    inset = np.interp(np.abs(np.arange(17) - 8), [0, 2, 5, 8], [0.04, 0.04, 0.02, 0.05])[:, None]
    inwards = head.points[27:36].mean(axis=0) - head.points[:17]
    return head.points[:17] + inset * head.scale * inwards / np.linalg.norm(
        inwards, axis=1, keepdims=True
    )


def paint_ears(
    image: np.ndarray, head: Head, skin: np.ndarray, side_light: float, rng: np.random.Generator
) -> None:
    """Paint two ears beside the ends of the jaw; `side_light` is from -1 (from the left) to 1."""
    unit = head.scale
    reach, height, level = rng.uniform(0.24, 0.4), rng.uniform(0.36, 0.5), rng.normal(-0.26, 0.06)
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    for side in (-1, 1):
        u = side * (1.36 + reach * (0.45 + 0.55 * np.cos(angle)))
        v = level + height * np.sin(angle) + 0.05 * np.cos(angle)
        ring = np.stack([u, v, -1.75 - 0.35 * (1 + np.cos(angle))], axis=1)
        # The labelled contour slides with the yaw, and the ear begins where it ends.
        outline = head.project(ring) + jaw_slide(head, side)
        tone = np.clip(rng.uniform(0.8, 1.15) * (1 + 0.4 * side * side_light), 0.2, 1.3)
        lay(
            image,
            [outline],
            max(0.6, 0.02 * unit),
            np.clip(skin * [1.02, 0.9, 0.88] * tone, 0, 1),
        )
        inner = outline.mean(axis=0) + 0.55 * (outline - outline.mean(axis=0))
        lay(image, [ribbon(inner, 0.06 * unit)], 0.03 * unit, skin * tone * 0.5, 0.7)


def rough_outline(
    outline: np.ndarray, centre: np.ndarray, roughness: float, rng: np.random.Generator
) -> np.ndarray:
    """Resample an outline to a smooth one whose radius varies by a fraction `roughness`."""
    length = np.concatenate(
        [[0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0, append=outline[:1]), axis=1))]
    )
    around = np.concatenate([outline, outline[:1]])
    at = np.linspace(0, length[-1], 28, endpoint=False)
    knots = np.stack([np.interp(at, length, around[:, axis]) for axis in (0, 1)], axis=1)
    return curve(
        centre + (knots - centre) * (1 + roughness * rng.standard_normal((28, 1))), closed=True
    )


def hair_texture(
    size: tuple[int, int],
    crown: np.ndarray,
    unit: float,
    colour: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return hair (height, width, 3) float32 with strands that lead away from the crown."""
    x = np.arange(size[1], dtype=np.float32) - np.float32(crown[0])
    y = np.arange(size[0], dtype=np.float32) - np.float32(crown[1])
    dx, dy = np.tile(x, (size[0], 1)), np.repeat(y[:, None], size[1], axis=1)
    angle, radius = cv2.phase(dx, dy), cv2.magnitude(dx, dy) / np.float32(unit)

    # Strands, in polar coordinates about the crown.
    curl = rng.uniform(0, 0.3) if rng.random() < 0.7 else rng.uniform(0.3, 1.5)
    angle = angle + np.float32(curl) * noise(rng, size, (size[0] / 6, size[1] / 6))
    grains = rng.standard_normal((64, 256), dtype=np.float32)
    strands = cv2.GaussianBlur(grains, (0, 0), sigmaX=rng.uniform(0.5, 2), sigmaY=3)
    strands = strands * np.float32(rng.uniform(0.1, 0.35) / max(float(strands.std()), 1e-3))
    across, along = angle * np.float32(256 / (2 * np.pi)), radius * np.float32(rng.uniform(4, 16))
    drawn = cv2.remap(strands, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    # A ring of sheen.
    ring = radius - np.float32(rng.uniform(0.5, 1.2))
    sheen = np.float32(rng.uniform(0, 0.6)) * cv2.exp(ring * ring * np.float32(-1 / 0.08))
    tone = np.maximum(1 + drawn + sheen, 0.2)
    return cv2.transform(tone, colour.astype(np.float32)[:, None])


def choose_style(rng: np.random.Generator, sitter: Sitter) -> dict[str, float]:
    """Choose the measures of a haircut, in canonical units."""
    short = rng.random() < (0.9 if sitter.manly else 0.25)
    bald = sitter.manly and rng.random() < 0.18
    receding = rng.uniform(0, 0.7) if sitter.manly and rng.random() < 0.35 else 0.0
    bangs = rng.random() < (0.15 if sitter.manly else 0.3)
    return {
        "thickness": 0.0 if bald else (rng.uniform(0.05, 0.3) if short else rng.uniform(0.15, 0.6)),
        "roughness": rng.uniform(0.005, 0.05),
        "hairline": rng.uniform(-1.35, -0.85) if bangs else rng.uniform(-2.05, -1.5) - receding,
        "parting": rng.normal(0, 0.5),
        "sideburn": rng.uniform(-0.85, 0.0),
        "long": 0.0 if short else rng.uniform(0.5, 3.5),
        "over_cheek": max(0.0, rng.normal(0.05, 0.15)),
        "fringe": float(bangs) * rng.uniform(0.02, 0.15) + rng.uniform(0, 0.06),
    }


def hair_outline(head: Head, style: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Return the outline (N, 2) of the hair on the skull, as if the face had hair, too."""
    radii = SKULL_RADII + style["thickness"] * np.array([0.9, 1.1, 0.9])
    points = SKULL_CENTRE + radii * ball()
    outline = hull(
        np.concatenate(
            [head.project(points[points[:, 1] < 0.4]), head.project(FOREHEAD * [1.02, 1.05, 1])]
        )
    )
    return rough_outline(outline, outline.mean(axis=0), style["roughness"], rng)


def jaw_slide(head: Head, side: int) -> np.ndarray:
    """Return the offset (2,), pixels, of the upper jaw points of a side from a rigid head."""
    beside = slice(0, 3) if side < 0 else slice(14, 17)
    return (head.points[beside] - head.project(resting_points()[beside])).mean(axis=0)


def face_opening(head: Head, style: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Return the outline of the face that hair leaves free."""
    top, burn, bare = style["hairline"], style["sideburn"], 1.33 - style["over_cheek"]
    side = [
        [1.7, 2.6, -1.5],
        [1.45, burn + 0.35, -1.75],
        [bare, burn, -1.45],
        [bare - 0.08, -0.95, -1.1],
        [0.92, max(top, -1.6) + 0.12, -0.8],
        [0.5, top - 0.02, -0.62],
    ]
    right = np.array(side)
    left = (right * [-1, 1, 1])[::-1]

    middle = np.array([[np.clip(style["parting"], -0.4, 0.4), top - 0.1, -0.62]])
    knots = np.concatenate([right, middle, left])
    places = head.project(knots)
    places[:4] += jaw_slide(head, 1)
    places[-4:] += jaw_slide(head, -1)

    # Single strands of the fringe.
    line = curve(places, dense=8)
    strands = style["fringe"] * head.scale * rng.standard_normal(len(line))
    strands[:8] = strands[-8:] = 0
    line[:, 1] += strands
    return line


def paint_long_hair(
    image: np.ndarray,
    head: Head,
    style: dict[str, float],
    texture: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Paint the hair that hangs down behind the face and the neck."""
    reach = 1.4 + style["thickness"]
    drop = style["long"]
    (left, right), (low_left, low_right) = rng.uniform(-0.1, 0.3, 2), rng.uniform(-0.4, 0.4, 2)
    ring = [
        [-reach, -1.2, -2],
        [-reach - left, 0.2, -2],
        [-reach + low_left, drop, -1.9],
        [0, drop + rng.uniform(-0.3, 0.2), -2],
        [reach + low_right, drop, -1.9],
        [reach + right, 0.2, -2],
        [reach, -1.2, -2],
    ]
    outline = head.project(ring)
    mask = fill(
        image.shape[:2],
        [rough_outline(outline, outline.mean(axis=0), style["roughness"], rng)],
        1.0,
    )
    blend(image, mask, texture * np.float32(rng.uniform(0.35, 0.8)))


def paint_hair(
    image: np.ndarray,
    head: Head,
    style: dict[str, float],
    texture: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Paint the hair in front: a cap round the opening of the face, and locks beside the face."""
    size, unit = image.shape[:2], head.scale
    cap = fill(size, [hair_outline(head, style, rng)], rng.uniform(0.6, 2.0))
    if not cap.opacity.size:
        return
    free = draw_hole(cap, face_opening(head, style, rng), rng.uniform(0.6, 0.06 * unit + 0.6))
    # The shadow of the hair on the forehead.
    shadow = cv2.GaussianBlur(1 - free, (0, 0), 0.12 * unit)
    shade(image, cap._replace(opacity=shadow * cap.opacity), rng.uniform(0.5, 1.0))

    # The hair, darker at its edge.
    edge = 0.6 + 0.4 * cv2.GaussianBlur(cap.opacity * (1 - free), (0, 0), 0.15 * unit)
    dark = edge[..., None] * texture[cap.rows, cap.columns]
    window = image[cap.rows, cap.columns]
    window += (cap.opacity * (1 - free))[..., None] * (dark - window)
    if style["long"] and rng.random() < 0.75:
        paint_locks(image, head, style, texture, rng)


def draw_hole(mask: Mask, outline: np.ndarray, soft: float) -> np.ndarray:
    """Return the opacity of a polygon (N, 2) in the mask's window, whatever the mask covers."""
    window = mask._replace(opacity=np.ones_like(mask.opacity))
    return draw_inside(window, [outline], soft).opacity


def paint_locks(
    image: np.ndarray,
    head: Head,
    style: dict[str, float],
    texture: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Paint hair that falls beside the face and hides a part of it."""
    for side in (-1, 1):
        if rng.random() < 0.25:
            continue
        inner = rng.uniform(0.85, 1.4)
        end = inner + rng.uniform(0, 0.4)
        line = np.array(
            [
                [1.3, -1.3, -1.3],
                [inner + 0.25, -0.5, -1.3],
                [inner + 0.2, 0.4, -1.3],
                [end, max(style["long"], 0.8), -1.2],
            ]
        ) * [side, 1, 1]
        width = head.scale * rng.uniform(0.25, 0.6) * np.linspace(0.8, 1.2, 16)
        lock = ribbon(curve(head.project(line) + jaw_slide(head, side)), width)
        mask = fill(image.shape[:2], [lock], rng.uniform(0.6, 1.5))
        blend(image, mask, texture * np.float32(rng.uniform(0.6, 1.1)))


HEADSCARF = np.array([[-1.3, 1.6, -1.4], [1.3, 1.6, -1.4], [0, 2.2, -1.3]])


def headscarf(head: Head, size: tuple[int, int], skull: np.ndarray, rim: float) -> Mask:
    """Return the mask of a scarf that covers the head except for the face.

    Args:
        head: wears it.
        size: height, width of the image.
        skull: (N, 3), canonical points that it covers.
        rim: canonical height of its edge above the brows.
    """
    around = hull(head.project(np.concatenate([skull, HEADSCARF])))
    right = np.array(
        [
            [0, 1.55, -0.6],
            [0.75, 1.25, -0.9],
            [1.15, 0.6, -1.3],
            [1.27, -0.3, -1.4],
            [1.1, -1.0, -1.0],
            [0.6, rim, -0.7],
            [0, rim - 0.1, -0.65],
        ]
    )
    left = (right * [-1, 1, 1])[-2:0:-1]
    mask = fill(size, [around], 0.8)
    face = curve(head.project(np.concatenate([right, left])), closed=True)
    return mask._replace(opacity=mask.opacity * (1 - draw_hole(mask, face, 0.8)))


def paint_hat(image: np.ndarray, head: Head, rng: np.random.Generator) -> None:
    """Paint a cap, a woollen hat or a headscarf."""
    size, unit = image.shape[:2], head.scale
    colour = random_colour(rng)
    skull = SKULL_CENTRE + (SKULL_RADII + rng.uniform(0.08, 0.4)) * ball()
    rim = rng.uniform(-1.6, -1.15)
    if rng.random() < 0.3:
        mask = headscarf(head, size, skull, rim)
    else:
        kept = skull[skull[:, 1] < rim + 0.15 + 0.25 * (skull[:, 2] < -1)]
        x = np.linspace(-1.25, 1.25, 7)
        brow = np.stack([x, rim + 0.1 * (1 - x**2), -0.62 - 0.35 * x**2], axis=1)
        mask = fill(size, [hull(head.project(np.concatenate([kept, brow])))], 0.8)
    if not mask.opacity.size:
        return

    # Cloth.
    folds = 1 + rng.uniform(0.03, 0.2) * noise(rng, mask.opacity.shape, max(2, 0.25 * unit))
    window = image[mask.rows, mask.columns]
    window += mask.opacity[..., None] * (folds[..., None] * colour.astype(np.float32) - window)
    if rng.random() < 0.5:
        paint_visor(image, head, rim, colour * rng.uniform(0.4, 0.9), rng)


def paint_visor(
    image: np.ndarray, head: Head, rim: float, colour: np.ndarray, rng: np.random.Generator
) -> None:
    """Paint the visor of a cap, and its shadow on the forehead."""
    x = np.linspace(-1.1, 1.1, 5)
    front = np.stack(
        [x, rim + rng.uniform(0.12, 0.17) - 0.1 * x**2, -0.55 + 0.5 * (1 - x**2)], axis=1
    )
    back = np.stack([x, np.full(5, rim - 0.05), -0.62 - 0.35 * x**2], axis=1)[::-1]
    lay(image, [head.project(np.concatenate([front, back]))], 0.8, colour)

    # Shadow.
    below = np.array([[1.0, rim + 0.5, -0.6], [-1.0, rim + 0.5, -0.6]])
    shadow = fill(
        image.shape[:2], [head.project(np.concatenate([front, below]))], 0.08 * head.scale
    )
    shade(image, shadow, rng.uniform(0.5, 0.9))


# Measured from the centre of a lens.
SHINE = np.array([[-0.3, -0.2, 0], [0.0, -0.25, 0], [-0.05, 0.2, 0], [-0.3, 0.15, 0]])


def paint_glasses(image: np.ndarray, head: Head, rng: np.random.Generator) -> None:
    """Paint glasses, or sometimes sunglasses."""
    size, unit = image.shape[:2], head.scale
    half_width, half_height = rng.uniform(0.34, 0.46), rng.uniform(0.2, 0.36)
    centre_u, centre_v, depth = rng.uniform(0.5, 0.56), -0.66 + rng.uniform(-0.04, 0.1), -0.4
    boxy, thick = rng.uniform(0.5, 1.0), rng.uniform(0.02, 0.09) * unit
    frame = random_colour(rng) * rng.uniform(0.05, 0.9)
    dark = rng.random() < 0.3
    tint = rng.uniform(0, 0.2) if dark else rng.uniform(0.2, 1)
    opacity = rng.uniform(0.6, 0.97) if dark else rng.uniform(0, 0.15)
    strength = rng.uniform(0.5, 1)

    # The outline of a lens.
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    wave = [np.sign(values) * np.abs(values) ** boxy for values in (np.cos(angle), np.sin(angle))]
    for side in (-1, 1):
        u = side * centre_u + half_width * wave[0]
        rim = head.project(
            np.stack([u, centre_v + half_height * wave[1], depth - 0.25 * u**2], axis=1)
        )
        lens = fill(size, [rim])
        blend(image, lens, tint, opacity)
        if rng.random() < 0.35:
            shine = head.project(SHINE + [side * centre_u, centre_v, depth])
            mask = fill(size, [shine], 0.05 * unit)
            blend(image, mask, 1.0, rng.uniform(0.1, 0.6))
        lay(image, [ribbon(np.concatenate([rim, rim[:2]]), max(thick, 1))], 0.4, frame, strength)
        hinge, ear = (
            [side * (centre_u + half_width), centre_v - 0.08, depth - 0.25],
            [side * 1.42, -0.66, -1.9],
        )
        if side * (head.rotation[0] @ [0, 0, 1]) <= 0.1:
            lay(image, [ribbon(head.project([hinge, ear]), max(thick, 1))], 0.4, frame, strength)

    # Bridge.
    gap = centre_u - half_width
    bridge = [
        [-gap, centre_v - 0.04, depth],
        [0, centre_v - 0.08, depth + 0.05],
        [gap, centre_v - 0.04, depth],
    ]
    lay(image, [ribbon(curve(head.project(bridge)), max(thick, 1))], 0.4, frame, strength)
