"""What is round a painted face: the place behind it, things in front of it, and the camera that takes the picture."""

import cv2
import numpy as np

from fkp.painter.brushes import blend, ellipse, fill, lay, noise, ribbon
from fkp.painter.relief import Head
from fkp.painter.sitter import SKIN_TONES


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour (3,) in [0, 1]: mostly muted, sometimes skin, sometimes loud."""
    kind = rng.random()
    if kind < 0.12:
        return SKIN_TONES[rng.integers(len(SKIN_TONES))] * rng.uniform(0.7, 1.1)
    gray = rng.random()
    return np.clip(gray + (rng.random(3) - 0.5) * (0.25 if kind < 0.75 else 1.2), 0, 1)


def paint_background(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A cluttered place (height, width, 3) float32 in [0, 1]."""
    height, width = size
    # Four corners' colours, smoothly joined; most rooms are darker or lighter on one side.
    corners = np.array([random_colour(rng) for _ in range(4)], np.float32).reshape(2, 2, 3)
    if rng.random() < 0.5:
        corners = corners[:1, :1] + 0.25 * (corners - corners[:1, :1])
    picture = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    drawn: np.ndarray = np.clip(255 * picture, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(0, 14)):
        draw_clutter(drawn, rng)
    if rng.random() < 0.15:
        draw_lettering(drawn, rng)
    blur = rng.choice([0.0, rng.uniform(0.6, 2.0), rng.uniform(2.0, 8.0)], p=[0.3, 0.4, 0.3])
    if blur:
        drawn = cv2.GaussianBlur(drawn, (0, 0), blur)
    picture = drawn.astype(np.float32) * np.float32(1 / 255)
    if rng.random() < 0.5:
        grain = rng.uniform(0.02, 0.12) * noise(rng, size, (rng.uniform(2, 20), rng.uniform(2, 20)))
        picture += grain[..., None]
    return picture


def draw_clutter(drawn: np.ndarray, rng: np.random.Generator) -> None:
    """One random thing on a uint8 picture, in place."""
    height, width = drawn.shape[:2]
    colour = [int(value) for value in 255 * random_colour(rng)]
    x, y = (int(value) for value in rng.uniform(-0.1, 1.1, 2) * (width, height))
    reach = int(rng.uniform(0.04, 0.5) * width)
    kind = rng.integers(6)
    if kind == 0:
        cv2.rectangle(drawn, (x, y), (x + reach, y + int(reach * rng.uniform(0.3, 3))), colour, -1)
    elif kind == 1:
        axes, turn = (reach // 2, int(reach * rng.uniform(0.2, 1))), rng.uniform(0, 180)
        cv2.ellipse(drawn, (x, y), axes, turn, 0, 360, colour, -1, cv2.LINE_AA)
    elif kind == 2:
        corners = (rng.normal(0, 0.5, (rng.integers(3, 7), 2)) * reach + (x, y)).astype(np.int32)
        cv2.fillPoly(drawn, [corners], colour, cv2.LINE_AA)
    elif kind == 3:
        end = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        cv2.line(drawn, (x, y), end, colour, int(rng.integers(1, 12)), cv2.LINE_AA)
    elif kind == 4:
        gap, thick = int(rng.integers(5, 30)), int(rng.integers(1, 5))
        for step in range(int(rng.integers(3, 12))):
            at = x + step * gap
            line = (
                ((at, y), (at, y + reach))
                if x % 2
                else ((x, y + step * gap), (x + reach, y + step * gap))
            )
            cv2.line(drawn, *line, colour, thick)
    else:
        other = [int(value) for value in 255 * random_colour(rng)]
        cv2.ellipse(drawn, (x, y), (reach // 3, reach // 2), 0, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(
            drawn,
            (x, y - reach // 4),
            (reach // 3, reach // 3),
            0,
            180,
            360,
            other,
            -1,
            cv2.LINE_AA,
        )


def draw_lettering(drawn: np.ndarray, rng: np.random.Generator) -> None:
    """A random word on a uint8 picture, in place, as captions and signs are."""
    text = "".join(chr(rng.integers(65, 91)) for _ in range(rng.integers(3, 12)))
    place = (
        int(rng.uniform(-0.1, 0.6) * drawn.shape[1]),
        int(rng.uniform(0.1, 1) * drawn.shape[0]),
    )
    colour = [int(value) for value in 255 * random_colour(rng)]
    font, height, thickness = int(rng.integers(0, 5)), rng.uniform(0.4, 2), int(rng.integers(1, 4))
    cv2.putText(drawn, text, place, font, height, colour, thickness, cv2.LINE_AA)


def paint_body(
    picture: np.ndarray, head: Head, skin: np.ndarray, side_light: float, rng: np.random.Generator
) -> None:
    """Neck, shoulders and clothes; `side_light` from -1 (light from the left) to 1."""
    size, unit = picture.shape[:2], head.scale
    throat = head.project([[0, 1.0, -1.4]])[0]
    down = 0.4 * head.camera[1] / unit + [0, 0.6]
    across = np.array([down[1], -down[0]])
    place = lambda x, y: throat + unit * (x * across + y * down)  # noqa: E731
    girth = rng.uniform(0.75, 1.15)
    slope, reach, drop = rng.uniform(0.5, 1.1), rng.uniform(1.8, 3.2), rng.uniform(1.0, 1.5)
    half = [(girth, -1.3), (girth, 0.6), (girth + 0.4, drop), (girth + 0.4, 6)]
    neck = [place(-x, y) for x, y in half] + [place(x, y) for x, y in half[::-1]]
    mask = fill(size, [np.array(neck)], max(0.6, 0.02 * unit))
    columns = np.arange(mask.columns.start, mask.columns.stop) - throat[0]
    tone = np.clip(rng.uniform(0.55, 1.1) * (1 + 0.5 * side_light * columns / unit), 0.15, 1.2)
    colour = np.zeros((*mask.opacity.shape, 3)) + skin * tone[:, None]
    window = picture[mask.rows, mask.columns]
    window += mask.opacity[..., None] * (colour.astype(np.float32) - window)

    cloth = random_colour(rng) * (rng.uniform(0.1, 0.5) if rng.random() < 0.5 else 1)
    collar = rng.choice([0.3, 0.8, 1.4]) + rng.uniform(-0.2, 0.2)
    for side in (-1, 1):
        half = [(girth - 0.15, collar - 0.35), (girth * 1.1, drop - 0.55), (reach, drop + slope * 0.5),
                (reach + 0.6, drop + 1.6), (reach, 7), (0, 7), (0, collar + rng.uniform(0.3, 1.2))]  # fmt: skip
        shoulder = [place(side * x, y) for x, y in half]
        mask = fill(size, [np.array(shoulder)], 0.6)
        blend(
            picture,
            mask,
            np.clip(cloth * (1 + 0.25 * side * side_light + rng.normal(0, 0.05)), 0, 1),
        )
        if rng.random() < 0.5:
            lapel = np.array(
                [
                    place(side * 0.75 * girth, collar - 0.4),
                    place(side * 1.4, 2.5),
                    place(0.1 * side, 2.6),
                ]
            )
            lay(picture, [lapel], 0.7, random_colour(rng), rng.uniform(0.3, 1))
    if rng.random() < 0.3:
        tie = np.array(
            [place(-0.15, collar + 0.5), place(0.15, collar + 0.5), place(0.3, 5), place(-0.3, 5)]
        )
        lay(picture, [tie], 0.6, random_colour(rng))


def paint_occluder(picture: np.ndarray, head: Head, rng: np.random.Generator) -> None:
    """A thing before the face: a microphone, a hand, a bar, a patch or lettering."""
    size, unit = picture.shape[:2], head.scale
    kind = rng.choice(["microphone", "hand", "bar", "patch"], p=[0.4, 0.3, 0.1, 0.2])
    if kind == "microphone":
        tip = head.project([[rng.normal(0, 0.5), rng.uniform(0.8, 1.6), 0]])[0]
        away = np.array([rng.normal(0, 0.7), 1.0]) * unit
        thick = rng.uniform(0.25, 0.5) * unit
        colour = random_colour(rng) * rng.uniform(0.1, 0.8)
        lay(picture, [ribbon(np.stack([tip, tip + 4 * away]), 0.6 * thick)], 0.7, colour)
        globe = fill(
            size, [ellipse(tip, np.array([thick, 0]) * 0.7, np.array([0, thick]) * 0.75)], 0.7
        )
        blend(picture, globe, np.clip(colour * 1.3, 0, 1))
        light = ellipse(tip - 0.2 * thick, np.array([0.25 * thick, 0]), np.array([0, 0.25 * thick]))
        lay(picture, [light], 0.15 * thick, 0.7, 0.4)
    elif kind == "hand":
        paint_hand(picture, head, rng)
    elif kind == "bar":
        ends = head.project(rng.normal(0, 1.2, (2, 3)) + [0, 0.4, 0])
        line = ends[0] + (ends[1] - ends[0]) * np.linspace(-5, 6, 2)[:, None]
        lay(picture, [ribbon(line, rng.uniform(0.08, 0.35) * unit)], 0.6, random_colour(rng))
    else:
        centre = head.project([[rng.normal(0, 0.9), rng.normal(0.3, 0.9), 0]])[0]
        patch = curve_blob(centre, rng.uniform(0.2, 0.6) * unit, rng)
        mask = fill(size, [patch], 0.7)
        blend(picture, mask._replace(opacity=mask.opacity), random_colour(rng), rng.uniform(0.7, 1))


def curve_blob(centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A random rounded outline (N, 2)."""
    outline = ellipse(np.zeros(2), np.array([radius, 0]), np.array([0, radius]), 10)
    return centre + outline * rng.uniform(0.6, 1.3, (10, 1)) * rng.uniform(0.5, 1.2, 2)


def paint_hand(picture: np.ndarray, head: Head, rng: np.random.Generator) -> None:
    """Four fingers and a palm, skin-coloured, coming from below or from the side."""
    unit = head.scale
    skin = SKIN_TONES[rng.integers(len(SKIN_TONES))] * rng.uniform(0.6, 1.0)
    tip = head.project([[rng.normal(0, 0.8), rng.uniform(0.3, 1.4), 0]])[0]
    angle = rng.uniform(0.15, 0.85) * np.pi
    along = np.array([np.cos(angle), np.sin(angle)])
    aside = np.array([-along[1], along[0]])
    width = rng.uniform(0.22, 0.32) * unit
    palm = tip + along * 1.6 * unit
    heel = ellipse(palm + along * 0.4 * unit, 2.2 * width * aside, 1.2 * unit * along)
    arm = ribbon(np.stack([palm, palm + 5 * unit * along]), 3 * width)
    lay(picture, [heel, arm], 1.0, skin)
    for finger in range(4):
        root = palm + (finger - 1.5) * width * aside
        end = (
            tip
            + (finger - 1.5) * width * aside * rng.uniform(0.9, 1.3)
            + along * rng.uniform(-0.1, 0.3) * unit
        )
        line = np.linspace(end, root, 8)
        widths = width * np.array([0.5, 0.85, 0.95, 1, 1, 1, 1, 1])
        lay(picture, [ribbon(line, widths * 1.15)], 1.0, skin * 0.6, 0.8)
        lay(picture, [ribbon(line, widths * 0.85)], 0.08 * unit, skin * rng.uniform(0.95, 1.1))


def photograph(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, colour cast, blur, a poor sensor and compression: float32 (H, W, 3) to uint8 (H, W, 3)."""
    height, width = picture.shape[:2]
    cast = np.exp(rng.normal(0, 0.08, 3)) * np.exp(rng.normal(-0.15, 0.15))
    # Film-like: highlights fade into white instead of breaking off.
    picture = 1 - cv2.exp(-1.7 * picture * cast.astype(np.float32))
    if rng.random() < 0.4:
        loss = rng.uniform(1.1, 2.4)
        small = cv2.resize(
            picture, (round(width / loss), round(height / loss)), interpolation=cv2.INTER_AREA
        )
        picture = cv2.resize(
            small,
            (width, height),
            interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC])),
        )
    kind = rng.random()
    if kind < 0.45:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.2))
    elif kind < 0.65:
        picture = motion_blur(picture, rng.uniform(2, 9) * width / 230, rng.uniform(0, np.pi))
    elif kind < 0.75:
        # Sharpened, as old video cameras do.
        picture = picture + rng.uniform(0.3, 1.2) * (
            picture - cv2.GaussianBlur(picture, (0, 0), rng.uniform(1, 2))
        )
    levels = tone_curve(rng)
    drawn = cv2.LUT(cv2.addWeighted(picture, 255, picture, 0, 0, dtype=cv2.CV_8U), levels)
    if rng.random() < 0.7:
        grain = rng.standard_normal((height, width), dtype=np.float32) * np.float32(
            255 * rng.uniform(0.003, 0.03)
        )
        drawn = cv2.add(drawn, cv2.merge([grain] * 3), dtype=cv2.CV_8U)
    if rng.random() < 0.12:
        drawn = cv2.cvtColor(cv2.cvtColor(drawn, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.6:
        quality = int(rng.integers(15, 90))
        packed = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        drawn = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(drawn)


def motion_blur(picture: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Smear by `length` pixels along `angle` radians."""
    size = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    reach = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    start, end = (
        tuple(int(value) for value in np.round(16 * (size // 2 + sign * reach))) for sign in (-1, 1)
    )
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_8, 4)
    return cv2.filter2D(picture, -1, kernel / max(kernel.sum(), 1))


def tone_curve(rng: np.random.Generator) -> np.ndarray:
    """A look-up table (256,) uint8: gamma, contrast, black and white level."""
    value = np.linspace(0, 1, 256) ** np.exp(rng.normal(0.15, 0.25))
    value = 0.45 + (value - 0.45) * np.exp(rng.normal(0, 0.2)) + rng.normal(-0.02, 0.06)
    return np.clip(255 * value, 0, 255).astype(np.uint8)
