"""Paint the features of a face exactly on its points: skin, brows, eyes, nose, mouth, beard."""

from typing import NamedTuple

import cv2
import numpy as np

from fkp.painter.brushes import (
    Mask,
    blend,
    curve,
    draw_inside,
    ellipse,
    fill,
    lay,
    noise,
    ribbon,
    shade,
)
from fkp.painter.relief import Head, canonical_grid
from fkp.painter.sitter import Sitter

IRIS_COLOURS = np.array(
    [
        [0.16, 0.09, 0.05],
        [0.28, 0.17, 0.08],
        [0.35, 0.33, 0.18],
        [0.35, 0.46, 0.56],
        [0.42, 0.48, 0.46],
    ]
)
IRIS_SHARES = [0.4, 0.25, 0.1, 0.15, 0.1]

# Outwards and down from the point of the nose's wing.
WING_CREASE = [[0.035, -0.14], [0.065, -0.06], [0.06, -0.01], [0.045, 0.0]]

# Canonical units: 5.9 mm for an eye distance of 90 mm.
IRIS_RADIUS = 0.10


def paint_skin(canvas: np.ndarray, sitter: Sitter, unit: float, rng: np.random.Generator) -> None:
    """Cover the whole canvas (H, W, 3) with skin."""
    size = canvas.shape[:2]
    canvas[:] = sitter.skin.astype(np.float32)
    blotches = 0.03 * noise(rng, size, 0.35 * unit) + rng.uniform(0.005, 0.03) * noise(
        rng, size, max(1.5, 0.04 * unit)
    )
    canvas *= (1 + blotches)[..., None]

    if rng.random() < 0.08:
        freckles = np.clip(noise(rng, size, max(1.5, 0.05 * unit)) - 1.3, 0, 1)
        canvas *= (1 - rng.uniform(0.2, 0.5) * freckles)[..., None]


def paint_brows(canvas: np.ndarray, head: Head, sitter: Sitter, rng: np.random.Generator) -> None:
    """Paint both brows, from nearly none to bushy."""
    unit, down = head.scale, head.camera[1]
    thickness = rng.uniform(0.09, 0.24) if sitter.manly else rng.uniform(0.06, 0.18)
    strength = rng.uniform(0.5, 1.0) if rng.random() < 0.85 else rng.uniform(0.0, 0.35)
    # In real labels the points run along the brow's upper edge, and end before it does at the nose.
    below = rng.normal(0, 0.015) + np.interp(
        np.linspace(0, 4, 21), range(5), [0.095, 0.095, 0.09, 0.075, 0.05]
    )
    taper = np.array([0.8, 1.1, 1.0, 0.6, 0.15])  # from the nose outwards
    strands = noise(rng, canvas.shape[:2], (max(1.2, 0.05 * unit), max(1.2, 0.03 * unit)))
    for points in (head.points[21:16:-1], head.points[22:27]):
        line = (curve(points) + below[:, None] * down)[: rng.integers(18, 21)]
        line[0] += rng.uniform(0.3, 0.9) * (line[0] - line[2])
        width = np.interp(np.linspace(0, 4, len(line)), range(5), taper) * thickness * unit
        hairs = fill(canvas.shape[:2], [ribbon(line, np.maximum(width, 1))], max(0.5, 0.02 * unit))
        opacity = hairs.opacity * np.clip(0.85 + 0.3 * strands[hairs.rows, hairs.columns], 0, 1)
        blend(canvas, hairs._replace(opacity=opacity), sitter.brow, strength)


def paint_eyes(canvas: np.ndarray, head: Head, sitter: Sitter, rng: np.random.Generator) -> None:
    """Paint both eyes; they share colour, gaze and the style of the lids."""
    iris = IRIS_COLOURS[rng.choice(len(IRIS_COLOURS), p=IRIS_SHARES)] * rng.uniform(0.6, 1.3)
    white = np.array([0.86, 0.83, 0.80]) * rng.uniform(0.65, 1.05)
    gaze = np.clip(rng.normal(0, [0.06, 0.025]), -0.12, 0.12) @ head.camera[:2]
    lids = LidStyle.choose(rng, sitter)
    paint_eye(canvas, head, head.points[36:42], (iris, white, gaze), lids, sitter, outer_first=True)
    paint_eye(
        canvas, head, head.points[42:48], (iris, white, gaze), lids, sitter, outer_first=False
    )


class LidStyle(NamedTuple):
    """Widths in canonical units and strengths in [0, 1] of the lines around an eye."""

    lash_width: float
    lash: float
    wing: float
    hollow: float
    lower: float
    crease_height: float
    crease: float
    shadow: float
    highlight: float

    @classmethod
    def choose(cls, rng: np.random.Generator, sitter: Sitter) -> "LidStyle":
        return cls(
            rng.uniform(0.025, 0.05) + 0.03 * sitter.makeup,
            min(1.0, rng.uniform(0.2, 0.7) + 0.4 * sitter.makeup),
            rng.uniform(0.0, 0.5),
            rng.uniform(0.0, 0.65),
            rng.uniform(0.05, 0.35) + 0.3 * sitter.makeup,
            rng.uniform(0.05, 0.12),
            rng.uniform(0.0, 0.35),
            rng.uniform(0.0, 0.3) + 0.4 * sitter.makeup * rng.random(),
            rng.uniform(0.2, 1.0) if rng.random() < 0.7 else 0.0,
        )


def paint_eye(
    canvas: np.ndarray,
    head: Head,
    points: np.ndarray,
    ball: tuple[np.ndarray, np.ndarray, np.ndarray],
    lids: LidStyle,
    sitter: Sitter,
    outer_first: bool,
) -> None:
    """Paint one eye on its six points: corner, two upper, corner, two lower."""
    iris, white, gaze = ball
    size, unit, (across, down) = canvas.shape[:2], head.scale, head.camera[:2]
    upper, lower = curve(points[:4]), curve(points[[3, 4, 5, 0]])
    # The line of the lashes ends a little beyond the outer corner.
    outer = points[0] if outer_first else points[3]
    tail = outer + lids.wing * (outer - points.mean(axis=0)) + 0.02 * down
    lashes = np.concatenate([[tail], upper]) if outer_first else np.concatenate([upper, [tail]])
    soft = max(0.4, 0.012 * unit)

    # The hollow round the eye: real faces are darker there, above all below and at the corners.
    round_eye = points.mean(axis=0) + 0.03 * down
    lay(
        canvas,
        [ellipse(round_eye, 0.3 * across, 0.12 * down)],
        0.07 * unit,
        sitter.skin * 0.55,
        lids.hollow,
    )
    above = upper - lids.crease_height * down
    lay(
        canvas, [np.concatenate([above, upper[::-1]])], 0.05 * unit, sitter.skin * 0.45, lids.shadow
    )
    ends = np.sin(np.linspace(0.15, np.pi - 0.05, len(upper)))
    lay(
        canvas,
        [ribbon(above, np.maximum(0.04 * unit * ends, 0.7))],
        0.6,
        sitter.skin * 0.4,
        lids.crease,
    )

    # The eyeball, which shows through the opening of the lids.
    opening = fill(size, [np.concatenate([upper[:-1], lower[:-1]])], soft)
    blend(canvas, opening, white)
    lay(
        canvas,
        [ellipse(points[3], 0.05 * across, 0.05 * down)],
        soft,
        sitter.skin * [0.95, 0.7, 0.65],
        0.6,
        opening,
    )
    centre = points.mean(axis=0) + gaze - 0.01 * down
    ring = IRIS_RADIUS
    lay(canvas, [ellipse(centre, ring * across, ring * down)], soft, iris * 0.6, 1.0, opening)
    lay(
        canvas,
        [ellipse(centre, 0.75 * ring * across, 0.75 * ring * down)],
        soft,
        iris,
        1.0,
        opening,
    )
    lay(
        canvas,
        [ellipse(centre, 0.42 * ring * across, 0.42 * ring * down)],
        soft,
        0.02,
        1.0,
        opening,
    )
    shade(canvas, draw_inside(opening, [ribbon(upper, 0.09 * unit)], 0.025 * unit), 0.55)
    glint = centre + lids.highlight * 0.04 * (across - down)
    lay(canvas, [ellipse(glint, 0.025 * across, 0.025 * down)], 0.3, 1.0, lids.highlight, opening)

    # Lashes and lower lid.
    swell = np.sin(np.linspace(0.15, np.pi - 0.15, len(lashes)))
    width = np.maximum(lids.lash_width * unit * (0.5 + 0.7 * swell), 0.8)
    lay(canvas, [ribbon(lashes, width)], soft, sitter.brow * 0.3, lids.lash)
    lay(
        canvas,
        [ribbon(lower, np.maximum(0.025 * unit, 0.7))],
        soft,
        sitter.skin * [0.4, 0.3, 0.3],
        lids.lower,
    )


def paint_nose(canvas: np.ndarray, head: Head, sitter: Sitter, rng: np.random.Generator) -> None:
    """Paint nostrils and the creases round the wings; the ridge is a matter of light alone."""
    unit, points, (across, down) = head.scale, head.points, head.camera[:2]
    dark, seen = rng.uniform(0.2, 0.9), rng.uniform(0.015, 0.045)
    for wing, base, side in ((31, 32, -1), (35, 34, 1)):
        centre = points[[wing, base]].mean(axis=0) - rng.uniform(0.06, 0.10) * down
        slant = 0.085 * across + side * 0.015 * down
        lay(
            canvas,
            [ellipse(centre, slant, seen * down, 16)],
            max(0.5, 0.015 * unit),
            sitter.skin * 0.2,
            dark,
        )
        crease = curve(points[wing] + np.array(WING_CREASE) * [side, 1] @ head.camera[:2])
        lay(
            canvas,
            [ribbon(crease, max(0.03 * unit, 0.8))],
            0.02 * unit,
            sitter.skin * 0.45,
            rng.uniform(0.1, 0.5),
        )
    paint_far_side(canvas, head, sitter, rng)
    underside = curve(points[31:36] - 0.02 * down)
    lay(
        canvas,
        [ribbon(underside, 0.05 * unit)],
        0.03 * unit,
        sitter.skin * 0.5,
        rng.uniform(0.0, 0.25),
    )


def paint_far_side(
    canvas: np.ndarray, head: Head, sitter: Sitter, rng: np.random.Generator
) -> None:
    """Paint the edge of a nose in yaw, which hides what is behind: a darker strip."""
    # The sine of the yaw, positive if the face looks to the right of the image.
    yaw = -float(head.rotation[2, 0])
    if abs(yaw) < 0.2:
        return
    far = np.sign(yaw) * head.camera[0]
    ridge = curve(head.points[[27, 28, 29, 30]])
    edge = ridge + np.linspace(0.02, 0.10, len(ridge))[:, None] * far
    strip = np.concatenate([edge, (edge + np.linspace(0.1, 0.25, len(ridge))[:, None] * far)[::-1]])
    strength = min(1.0, 1.5 * abs(yaw)) * rng.uniform(0.1, 0.7)
    lay(canvas, [strip], 0.03 * head.scale, sitter.skin * 0.5, strength)


def paint_mouth(canvas: np.ndarray, head: Head, sitter: Sitter, rng: np.random.Generator) -> None:
    """Paint the lips, and what is visible between them."""
    size, unit, points, (across, down) = canvas.shape[:2], head.scale, head.points, head.camera[:2]
    lip = sitter.skin * (np.array([0.92, 0.62, 0.60]) * rng.uniform(0.8, 1.02))
    if sitter.makeup > 0.3:
        lipstick = rng.uniform([0.45, 0.05, 0.10], [0.85, 0.40, 0.45])
        lip += sitter.makeup * rng.uniform(0.3, 0.9) * (lipstick - lip)

    # Contours.
    soft = max(0.5, (0.015 + 0.02 * (sitter.makeup == 0)) * unit)
    upper_edge = np.concatenate([curve(points[48:52], dense=4)[:-1], curve(points[51:55], dense=4)])
    lower_edge = curve(points[[54, 55, 56, 57, 58, 59, 48]], dense=4)
    inner_upper, inner_lower = (
        curve(points[60:65], dense=4),
        curve(points[[64, 65, 66, 67, 60]], dense=4),
    )

    # Lips.
    strength = rng.uniform(0.35, 1.0) if sitter.makeup == 0 else 1.0
    lay(canvas, [np.concatenate([upper_edge[:-1], lower_edge[:-1]])], soft, lip, strength)
    lay(
        canvas,
        [np.concatenate([upper_edge, inner_upper[::-1]])],
        soft,
        lip * rng.uniform(0.8, 1.05),
        strength,
    )

    gloss = curve((points[[59, 58, 57, 56, 55]] + points[[60, 67, 66, 65, 64]]) / 2)
    lay(
        canvas,
        [ribbon(gloss[3:-3], 0.05 * unit)],
        0.025 * unit,
        np.minimum(lip * 1.4 + 0.05, 1),
        rng.uniform(0, 0.6),
    )

    # The opening between the lips.
    opening = fill(
        size, [np.concatenate([inner_upper[:-1], inner_lower[:-1]])], max(0.4, 0.01 * unit)
    )
    gap = float(np.linalg.norm(points[66] - points[62])) / unit
    # Labels leave a gap even between closed lips; the line is then in its upper part.
    parted = gap > rng.uniform(0.05, 0.14)
    if parted:
        blend(canvas, opening, [0.16, 0.05, 0.05])
        paint_inner_mouth(canvas, head, opening, gap, rng)

    # The line between the lips.
    lowering = rng.uniform(0.1, 0.4) if parted else rng.uniform(0.35, 0.7)
    line = curve(points[60:65] + lowering * (points[[60, 67, 66, 65, 64]] - points[60:65]))
    taper = np.interp(np.linspace(-1, 1, len(line)), [-1, -0.6, 0.6, 1], [0.15, 1, 1, 0.15])
    width = np.maximum(0.03 * unit * taper, 0.8)
    lay(canvas, [ribbon(line, width)], 0.5, lip * 0.25, rng.uniform(0.4, 0.95))

    # Shadows at the corners and below the lower lip.
    for corner in (48, 54):
        spot = ellipse(points[corner], 0.04 * across, 0.04 * down, 12)
        lay(canvas, [spot], 0.02 * unit, lip * 0.4, rng.uniform(0, 0.2))
    shadow = ellipse(points[57] + rng.uniform(0.1, 0.2) * down, 0.2 * across, 0.04 * down, 16)
    lay(canvas, [shadow], 0.04 * unit, sitter.skin * 0.6, rng.uniform(0, 0.35))


def paint_inner_mouth(
    canvas: np.ndarray, head: Head, opening: Mask, gap: float, rng: np.random.Generator
) -> None:
    """Paint tongue and teeth in a mouth that is open by `gap` canonical units."""
    points, down, unit = head.points, head.camera[1], head.scale
    teeth = np.array([0.88, 0.85, 0.78]) * rng.uniform(0.75, 1.05)

    # Tongue.
    if rng.random() < 0.5 and gap > 0.15:
        tongue = ellipse(points[66] - 0.02 * down, 0.2 * head.camera[0], 0.35 * gap * down, 16)
        lay(canvas, [tongue], 0.02 * unit, [0.55, 0.25, 0.24], 1.0, opening)

    # Upper teeth.
    if rng.random() < 0.75:
        drop = min(gap * rng.uniform(0.5, 1.2), 0.16)
        gum = curve(points[60:65])
        band = np.concatenate([gum, (gum + drop * down)[::-1]])
        narrow = draw_inside(opening, [band], max(0.4, 0.01 * unit))
        blend(canvas, narrow, teeth, rng.uniform(0.6, 1.0))

    # Lower teeth.
    if rng.random() < 0.3 and gap > 0.12:
        gum = curve(points[[60, 67, 66, 65, 64]])
        band = np.concatenate([gum, (gum - 0.06 * down)[::-1]])
        lay(canvas, [band], max(0.4, 0.01 * unit), teeth * 0.85, 0.8, opening)


def paint_wrinkles(
    canvas: np.ndarray, head: Head, sitter: Sitter, rng: np.random.Generator
) -> None:
    """Paint lines from the nose to the mouth, on the forehead and under the eyes."""
    unit, points, (across, down) = head.scale, head.points, head.camera[:2]
    dark = sitter.skin * 0.5

    # From the nose to the mouth.
    for wing, corner, side in ((31, 48, -1), (35, 54, 1)):
        out = side * across
        beside_wing = points[wing] + [0.13 * out - 0.1 * down, 0.28 * out + 0.06 * down]
        beside_mouth = points[corner] + [0.13 * out - 0.12 * down, 0.1 * out + 0.1 * down]
        fold = curve(np.concatenate([beside_wing, beside_mouth]))
        lay(
            canvas,
            [ribbon(fold, 0.07 * unit)],
            0.035 * unit,
            dark,
            rng.uniform(0, 0.55) * (0.4 + sitter.age),
        )

    # Bags under the eyes.
    for lower_lid in ([36, 41, 40, 39], [42, 47, 46, 45]):
        bag = curve(points[lower_lid] + rng.uniform(0.08, 0.13) * down)
        lay(
            canvas,
            [ribbon(bag, 0.07 * unit)],
            0.03 * unit,
            dark,
            rng.uniform(0, 0.5) * (0.4 + sitter.age),
        )

    # Forehead.
    if sitter.age > 0.6:
        strength, lift = rng.uniform(0, 0.5), rng.uniform(0.2, 0.3)
        for row in range(rng.integers(1, 4)):
            line = curve(points[[18, 20, 23, 25]] - (lift + 0.14 * row) * down)
            lay(canvas, [ribbon(line, 0.03 * unit)], 0.015 * unit, dark, strength)
        for inner in (21, 22):
            frown = points[inner] + (0.13 if inner == 21 else -0.13) * across
            crease = np.stack([frown - 0.05 * down, frown + 0.15 * down])
            lay(canvas, [ribbon(crease, 0.03 * unit)], 0.02 * unit, dark, rng.uniform(0, 0.5))


BEARDS = ("moustache", "goatee", "full", "circle", "chin")


def ramp(value: np.ndarray, edge: float, blur: float = 0.05) -> np.ndarray:
    """Return a soft step from 0 to 1 where the value passes the edge."""
    return 0.5 + 0.5 * np.tanh((value - edge) / (2 * blur))


def beard_map(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return where a beard grows: a canonical map (ROWS, COLUMNS) float32 in [0, 1]."""
    u, v = canonical_grid()
    u = np.abs(u)
    width = rng.uniform(0.36, 0.52)
    moustache = ramp(width - u, 0) * ramp(v, 0.24) * ramp(0.44 + 0.25 * u - v, 0)

    chin = ramp(rng.uniform(0.25, 0.5) - u, 0) * ramp(v, 0.86)
    if kind == "moustache":
        return moustache.astype(np.float32)
    if kind == "chin":
        return chin.astype(np.float32)
    round_mouth = ramp(0.6 - u, 0) * ramp(v, 0.3) * ramp(u, 0.42)
    if kind == "goatee":
        return np.maximum(moustache, chin).astype(np.float32)
    if kind == "circle":
        return np.clip(moustache + chin + round_mouth, 0, 1).astype(np.float32)

    # A full beard.
    cheek_line = rng.uniform(0.2, 0.5) - 0.75 * np.clip(u - 0.55, 0, None)
    bare_lips = 1 - ramp(1 - (u / 0.46) ** 2 - ((v - 0.57) / 0.2) ** 2, 0, 0.1)
    full = ramp(v - cheek_line, 0, 0.07) * ramp(u + 2 * np.clip(v - 0.75, 0, None), 0.42)
    return (np.maximum(np.clip(full, 0, 1), moustache) * bare_lips).astype(np.float32)


def paint_beard(
    canvas: np.ndarray,
    head: Head,
    sitter: Sitter,
    cells: tuple[np.ndarray, np.ndarray],
    window: Mask,
    rng: np.random.Generator,
) -> None:
    """Paint a beard, a moustache or stubble; `cells` are the canonical maps of `window`."""
    if not sitter.manly or rng.random() < 0.3:
        return
    kind = BEARDS[rng.choice(len(BEARDS), p=[0.2, 0.1, 0.5, 0.13, 0.07])]
    stubble = rng.random() < 0.55
    grown = cv2.remap(
        beard_map(kind, rng), *cells, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )

    # Hairs.
    cell = max(1.2, rng.uniform(0.02, 0.05) * head.scale)
    grain = noise(rng, grown.shape, (1.8 * cell, cell))
    opacity = np.clip(grown * (1 + rng.uniform(0.1, 0.5) * grain), 0, 1)
    strength = rng.uniform(0.08, 0.45) if stubble else rng.uniform(0.5, 0.95)
    colour = sitter.hair * rng.uniform(0.6, 1.1) if not stubble else sitter.skin * 0.4
    blend(canvas, window._replace(opacity=opacity), colour, strength)
