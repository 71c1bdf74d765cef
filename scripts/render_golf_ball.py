"""Renders samples/golf_ball.jpg, a dimpled sphere on a lawn under sun and sky: render_golf_ball.py OUT.jpg."""

import sys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float64]

SIZE_PX = 480
OVERSAMPLING = 2
SIDE = SIZE_PX * OVERSAMPLING
CENTRE = 0.5
RADIUS = 0.3
DIMPLES = 336  # the most common count on real balls
DIMPLE_RADIUS = 0.088  # radians; covers about three quarters of the sphere
SUN = np.array([-0.5, -0.75, 0.62])


def cloud(random: np.random.Generator, columns: int, rows: int) -> Array:
    """Smooth noise (SIDE, SIDE) with that many bumps across and down."""
    coarse = Image.fromarray(random.normal(size=(rows, columns)).astype(np.float32))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)


def lawn(random: np.random.Generator, y: Array) -> Array:
    """Grass (SIDE, SIDE, 3), lighter towards the top, where it is farther away."""
    blades = 0.35 * cloud(random, 260, 60) + 0.3 * cloud(random, 520, 140) + 0.25 * cloud(random, 40, 24)
    blades += 0.2 * cloud(random, 9, 7)
    colours = np.stack([70 + 28 * blades, 118 + 34 * blades, 38 + 20 * blades], axis=-1)
    return np.asarray(colours * (1.1 - 0.35 * y)[..., None])


def dimple_centres() -> Array:
    """Unit vectors (DIMPLES, 3), spread evenly over the sphere along a golden spiral, tilted towards the viewer."""
    index = np.arange(DIMPLES) + 0.5
    polar, azimuth = np.arccos(1 - 2 * index / DIMPLES), np.pi * (1 + 5**0.5) * index
    spiral = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=-1)
    cos, sin = np.cos(0.6), np.sin(0.6)
    return np.asarray(spiral @ np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]]))


def dimpled(points: Array) -> Array:
    """Surface normals (n, 3) of the ball at points (n, 3) of the unit sphere."""
    centres = dimple_centres()
    nearest = np.concatenate([(part @ centres.T).argmax(axis=1) for part in np.array_split(points, 32)])
    centre = centres[nearest]
    along = np.sum(points * centre, axis=1)
    angle = np.arccos(np.clip(along, -1, 1))
    outward = points - along[:, None] * centre
    outward /= np.linalg.norm(outward, axis=1, keepdims=True) + 1e-9
    steep = np.where(angle < DIMPLE_RADIUS, 0.55 * np.sin(np.pi * np.clip(angle / DIMPLE_RADIUS, 0, 1)) ** 0.8, 0)
    normals = points - steep[:, None] * outward
    return np.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True))


def shade(normals: Array) -> Array:
    """Colours (n, 3) of white lacquer under the sun, the sky and the light that the lawn throws back."""
    sun = SUN / np.linalg.norm(SUN)
    halfway = sun + np.array([0.0, 0.0, 1.0])
    halfway /= np.linalg.norm(halfway)
    light = 0.72 * np.clip(normals @ sun, 0, None) + 0.16 * (1 - normals[:, 1])
    gloss = 90 * np.clip(normals @ halfway, 0, None) ** 60
    lawn_light = 0.5 * (1 + normals[:, 1])
    return np.asarray(light[:, None] * [250, 250, 246] + lawn_light[:, None] * [18, 34, 10] + gloss[:, None])


def grass_in_front(image: Image.Image, random: np.random.Generator) -> None:
    """Draws blades over the foot of the ball and down to the lower edge, the nearest last and longest."""
    draw = ImageDraw.Draw(image)
    for foot in np.sort(random.uniform(0.78, 1.06, size=3000)):
        near = (foot - 0.78) / 0.28
        x, height, lean = random.uniform(0, SIZE_PX), random.uniform(10, 24) + 16 * near, random.uniform(-9, 9)
        half, y = 1.2 + near, foot * SIZE_PX
        green = random.uniform(0.55, 1.15)
        colour = (int(66 * green), int(114 * green), int(36 * green))
        draw.polygon([(x - half, y), (x + half, y), (x + lean, y - height)], fill=colour)


def render() -> Image.Image:
    """The picture, the same at every run."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    across, down = (x - CENTRE) / RADIUS, (y - CENTRE) / RADIUS
    ball = across**2 + down**2 < 1
    pixels = lawn(random, y)
    shadow = ((x - CENTRE - 0.1) / (1.15 * RADIUS)) ** 2 + ((y - CENTRE - 0.93 * RADIUS) / (0.33 * RADIUS)) ** 2
    pixels *= (1 - 0.75 * np.exp(-1.3 * shadow))[..., None]
    sphere = np.stack([across, down, np.sqrt(np.clip(1 - across**2 - down**2, 0, 1))], axis=-1)
    pixels[ball] = shade(dimpled(sphere[ball]))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image = image.resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS)
    grass_in_front(image, random)
    return image.filter(ImageFilter.GaussianBlur(0.5))


if __name__ == "__main__":
    render().save(sys.argv[1], quality=85)
