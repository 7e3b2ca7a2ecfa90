"""Paint what surrounds a face: background, body, occluders; and simulate the camera."""

import cv2
import numpy as np

from fkp.painter.brushes import blend, ellipse, fill, lay, noise, ribbon
from fkp.painter.relief import Head
from fkp.painter.sitter import SKIN_TONES


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """Choose a colour (3,) in [0, 1]: mostly muted, sometimes skin, sometimes bright."""
    kind = rng.random()
    if kind < 0.12:
        return SKIN_TONES[rng.integers(len(SKIN_TONES))] * rng.uniform(0.7, 1.1)
    gray = rng.random()
    return np.clip(gray + (rng.random(3) - 0.5) * (0.25 if kind < 0.75 else 1.2), 0, 1)


def paint_background(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Paint a cluttered background (height, width, 3) float32 in [0, 1]."""
    height, width = size
    # A smooth gradient between the colours of four corners: rooms are darker on one side.
    corners = np.array([random_colour(rng) for _ in range(4)], np.float32).reshape(2, 2, 3)
    if rng.random() < 0.5:
        corners = corners[:1, :1] + 0.25 * (corners - corners[:1, :1])
    image = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)

    # Clutter.
    drawn: np.ndarray = np.clip(255 * image, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(0, 14)):
        draw_clutter(drawn, rng)
    if rng.random() < 0.15:
        draw_lettering(drawn, rng)

    # Blur and texture.
    blur = rng.choice([0.0, rng.uniform(0.6, 2.0), rng.uniform(2.0, 8.0)], p=[0.3, 0.4, 0.3])
    if blur:
        drawn = cv2.GaussianBlur(drawn, (0, 0), blur)
    image = drawn.astype(np.float32) * np.float32(1 / 255)
    if rng.random() < 0.5:
        grain = rng.uniform(0.02, 0.12) * noise(rng, size, (rng.uniform(2, 20), rng.uniform(2, 20)))
        image += grain[..., None]
    return image


def draw_clutter(drawn: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a random shape on a uint8 image, in place."""
    height, width = drawn.shape[:2]
    colour = [int(value) for value in 255 * random_colour(rng)]
    x, y = (int(value) for value in rng.uniform(-0.1, 1.1, 2) * (width, height))
    reach = int(rng.uniform(0.04, 0.5) * width)
    kind = rng.integers(6)
    if kind == 0:
        cv2.rectangle(drawn, (x, y), (x + reach, y + int(reach * rng.uniform(0.3, 3))), colour, -1)
    elif kind == 1:
        axes, angle = (reach // 2, int(reach * rng.uniform(0.2, 1))), rng.uniform(0, 180)
        cv2.ellipse(drawn, (x, y), axes, angle, 0, 360, colour, -1, cv2.LINE_AA)
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
    """Draw a random word on a uint8 image, like a caption or a sign, in place."""
    text = "".join(chr(rng.integers(65, 91)) for _ in range(rng.integers(3, 12)))
    place = (
        int(rng.uniform(-0.1, 0.6) * drawn.shape[1]),
        int(rng.uniform(0.1, 1) * drawn.shape[0]),
    )
    colour = [int(value) for value in 255 * random_colour(rng)]
    font, height, thickness = int(rng.integers(0, 5)), rng.uniform(0.4, 2), int(rng.integers(1, 4))
    cv2.putText(drawn, text, place, font, height, colour, thickness, cv2.LINE_AA)


def paint_body(
    image: np.ndarray, head: Head, skin: np.ndarray, side_light: float, rng: np.random.Generator
) -> None:
    """Paint neck, shoulders and clothes; `side_light` is from -1 (from the left) to 1."""
    size, unit = image.shape[:2], head.scale
    throat = head.project([[0, 1.0, -1.4]])[0]
    down = 0.4 * head.camera[1] / unit + [0, 0.6]
    across = np.array([down[1], -down[0]])
    place = lambda x, y: throat + unit * (x * across + y * down)  # noqa: E731

    # Neck.
    girth = rng.uniform(0.75, 1.15)
    slope, reach, drop = rng.uniform(0.5, 1.1), rng.uniform(1.8, 3.2), rng.uniform(1.0, 1.5)
    half = [(girth, -1.3), (girth, 0.6), (girth + 0.4, drop), (girth + 0.4, 6)]
    neck = [place(-x, y) for x, y in half] + [place(x, y) for x, y in half[::-1]]
    mask = fill(size, [np.array(neck)], max(0.6, 0.02 * unit))
    columns = np.arange(mask.columns.start, mask.columns.stop) - throat[0]
    tone = np.clip(rng.uniform(0.55, 1.1) * (1 + 0.5 * side_light * columns / unit), 0.15, 1.2)
    colour = np.zeros((*mask.opacity.shape, 3)) + skin * tone[:, None]
    window = image[mask.rows, mask.columns]
    window += mask.opacity[..., None] * (colour.astype(np.float32) - window)

    cloth = random_colour(rng) * (rng.uniform(0.1, 0.5) if rng.random() < 0.5 else 1)
    collar = rng.choice([0.3, 0.8, 1.4]) + rng.uniform(-0.2, 0.2)
    for side in (-1, 1):
        half = [
            (girth - 0.15, collar - 0.35),
            (girth * 1.1, drop - 0.55),
            (reach, drop + slope * 0.5),
            (reach + 0.6, drop + 1.6),
            (reach, 7),
            (0, 7),
            (0, collar + rng.uniform(0.3, 1.2)),
        ]
        shoulder = [place(side * x, y) for x, y in half]
        mask = fill(size, [np.array(shoulder)], 0.6)
        blend(
            image,
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
            lay(image, [lapel], 0.7, random_colour(rng), rng.uniform(0.3, 1))

    # Tie.
    if rng.random() < 0.3:
        tie = np.array(
            [place(-0.15, collar + 0.5), place(0.15, collar + 0.5), place(0.3, 5), place(-0.3, 5)]
        )
        lay(image, [tie], 0.6, random_colour(rng))


def paint_occluder(image: np.ndarray, head: Head, rng: np.random.Generator) -> None:
    """Paint an object in front of the face: a microphone, a hand, a bar or a patch."""
    size, unit = image.shape[:2], head.scale
    kind = rng.choice(["microphone", "hand", "bar", "patch"], p=[0.4, 0.3, 0.1, 0.2])
    if kind == "microphone":
        tip = head.project([[rng.normal(0, 0.5), rng.uniform(0.8, 1.6), 0]])[0]
        away = np.array([rng.normal(0, 0.7), 1.0]) * unit
        thick = rng.uniform(0.25, 0.5) * unit
        colour = random_colour(rng) * rng.uniform(0.1, 0.8)
        lay(image, [ribbon(np.stack([tip, tip + 4 * away]), 0.6 * thick)], 0.7, colour)
        globe = fill(
            size, [ellipse(tip, np.array([thick, 0]) * 0.7, np.array([0, thick]) * 0.75)], 0.7
        )
        blend(image, globe, np.clip(colour * 1.3, 0, 1))
        light = ellipse(tip - 0.2 * thick, np.array([0.25 * thick, 0]), np.array([0, 0.25 * thick]))
        lay(image, [light], 0.15 * thick, 0.7, 0.4)
    elif kind == "hand":
        paint_hand(image, head, rng)
    elif kind == "bar":
        ends = head.project(rng.normal(0, 1.2, (2, 3)) + [0, 0.4, 0])
        line = ends[0] + (ends[1] - ends[0]) * np.linspace(-5, 6, 2)[:, None]
        lay(image, [ribbon(line, rng.uniform(0.08, 0.35) * unit)], 0.6, random_colour(rng))
    else:
        centre = head.project([[rng.normal(0, 0.9), rng.normal(0.3, 0.9), 0]])[0]
        patch = curve_blob(centre, rng.uniform(0.2, 0.6) * unit, rng)
        mask = fill(size, [patch], 0.7)
        blend(image, mask._replace(opacity=mask.opacity), random_colour(rng), rng.uniform(0.7, 1))


def curve_blob(centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Return a random rounded outline (N, 2)."""
    outline = ellipse(np.zeros(2), np.array([radius, 0]), np.array([0, radius]), 10)
    return centre + outline * rng.uniform(0.6, 1.3, (10, 1)) * rng.uniform(0.5, 1.2, 2)


def paint_hand(image: np.ndarray, head: Head, rng: np.random.Generator) -> None:
    """Paint a hand that reaches in from below or from the side."""
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
    lay(image, [heel, arm], 1.0, skin)

    # Each finger, from its tip to its root, with a dark edge.
    for finger in range(4):
        root = palm + (finger - 1.5) * width * aside
        end = (
            tip
            + (finger - 1.5) * width * aside * rng.uniform(0.9, 1.3)
            + along * rng.uniform(-0.1, 0.3) * unit
        )
        line = np.linspace(end, root, 8)
        widths = width * np.array([0.5, 0.85, 0.95, 1, 1, 1, 1, 1])
        lay(image, [ribbon(line, widths * 1.15)], 1.0, skin * 0.6, 0.8)
        lay(image, [ribbon(line, widths * 0.85)], 0.08 * unit, skin * rng.uniform(0.95, 1.1))


def photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Simulate a camera: exposure, colour cast, blur, noise and compression.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        rng: is drawn from.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    cast = np.exp(rng.normal(0, 0.08, 3)) * np.exp(rng.normal(-0.15, 0.15))

    # Highlights saturate smoothly instead of being clipped.
    image = 1 - cv2.exp(-1.7 * image * cast.astype(np.float32))

    # A low resolution.
    if rng.random() < 0.4:
        loss = rng.uniform(1.1, 2.4)
        small = cv2.resize(
            image, (round(width / loss), round(height / loss)), interpolation=cv2.INTER_AREA
        )
        image = cv2.resize(
            small,
            (width, height),
            interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC])),
        )

    # Blur or sharpening.
    kind = rng.random()
    if kind < 0.45:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    elif kind < 0.65:
        image = motion_blur(image, rng.uniform(2, 9) * width / 230, rng.uniform(0, np.pi))
    elif kind < 0.75:
        # Sharpened, like the images of old video cameras.
        image = image + rng.uniform(0.3, 1.2) * (
            image - cv2.GaussianBlur(image, (0, 0), rng.uniform(1, 2))
        )

    # Tone curve.
    levels = tone_curve(rng)
    drawn = cv2.LUT(cv2.addWeighted(image, 255, image, 0, 0, dtype=cv2.CV_8U), levels)

    # Noise.
    if rng.random() < 0.7:
        grain = rng.standard_normal((height, width), dtype=np.float32) * np.float32(
            255 * rng.uniform(0.003, 0.03)
        )
        drawn = cv2.add(drawn, cv2.merge([grain] * 3), dtype=cv2.CV_8U)

    # Gray.
    if rng.random() < 0.12:
        drawn = cv2.cvtColor(cv2.cvtColor(drawn, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)

    # Compression.
    if rng.random() < 0.6:
        quality = int(rng.integers(15, 90))
        packed = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        drawn = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(drawn)


def motion_blur(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Blur along a line of `length` pixels at `angle` radians."""
    size = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    reach = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    start, end = (
        tuple(int(value) for value in np.round(16 * (size // 2 + sign * reach))) for sign in (-1, 1)
    )
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_8, 4)
    return cv2.filter2D(image, -1, kernel / max(kernel.sum(), 1))


def tone_curve(rng: np.random.Generator) -> np.ndarray:
    """Return a look-up table (256,) uint8: gamma, contrast, black and white level."""
    value = np.linspace(0, 1, 256) ** np.exp(rng.normal(0.15, 0.25))
    value = 0.45 + (value - 0.45) * np.exp(rng.normal(0, 0.2)) + rng.normal(-0.02, 0.06)
    return np.clip(255 * value, 0, 255).astype(np.uint8)
