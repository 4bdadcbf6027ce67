#!/usr/bin/env python3
"""Draws folded stacks (fold_stacks.py) from stdin as a flame graph, an SVG on stdout.

    bench/flamegraph.py [--title TEXT] < stacks.folded > graph.svg

Width is the share of samples, depth grows upwards, neighbours are sorted by name (so the x axis is
no time). Colours say what kind of code it is: keel, the bench, libraries, kernel. A pointer over a
box shows its name, samples and share; a click makes the box the whole width, a click on the bottom
box resets. Boxes narrower than a pixel are left out."""

import argparse
import hashlib
import sys
from html import escape

WIDTH, ROW, FONT, MARGIN, HEAD, LEGEND = 1400, 19, 12, 10, 44, 30
CHARACTER = FONT * 0.61  # width of one letter of the fixed font
MINIMUM = 1.0  # pixels
# Kind: (hue, saturation, lightness) and the legend's words.
COLOURS = {
    "keel": ((28, 88, 62), "keel"),
    "bench": ((48, 75, 68), "bench"),
    "library": ((150, 35, 65), "libraries and runtime"),
    "kernel": ((212, 55, 70), "kernel"),
    "root": ((0, 0, 82), "thread"),
}

SCRIPT = """
const graph = document.getElementById('boxes'), whole = %(width)g, left = %(left)g;
const boxes = [...graph.querySelectorAll('g')].map(g => ({g, r: g.querySelector('rect'),
  t: g.querySelector('text'), x: +g.dataset.x, w: +g.dataset.w, d: +g.dataset.d}));
function show(box) {
  const scale = whole / box.w;
  for (const b of boxes) {
    const above = b.d >= box.d && b.x >= box.x - 1e-6 && b.x + b.w <= box.x + box.w + 1e-6;
    const below = b.d < box.d && b.x <= box.x + 1e-6 && b.x + b.w >= box.x + box.w - 1e-6;
    b.g.style.display = above || below ? '' : 'none';
    const x = below ? left : left + (b.x - box.x) * scale, w = below ? whole : b.w * scale;
    b.r.setAttribute('x', x); b.r.setAttribute('width', Math.max(w - 0.5, 0.1));
    b.r.style.opacity = below ? 0.5 : 1;
    const room = Math.floor((w - 6) / %(character)g), name = b.g.dataset.n;
    b.t.setAttribute('x', x + 3);
    b.t.textContent =
        room < 3 ? '' : name.length <= room ? name : name.slice(0, room - 1) + '\\u2026';
  }
}
for (const b of boxes) b.g.addEventListener('click', () => show(b));
"""


class Box:
    def __init__(self):
        self.samples = 0
        self.above = {}

    def add(self, frames, count):
        self.samples += count
        box = self
        for frame in frames:
            box = box.above.setdefault(frame, Box())
            box.samples += count

    def depth(self, least):
        """Levels of boxes with at least `least` samples."""
        deeper = (box.depth(least) for box in self.above.values() if box.samples >= least)
        return 1 + max(deeper, default=0)


def kind_of(name, depth):
    if depth <= 1:
        return "root"
    if name.endswith("_[k]"):
        return "kernel"
    if "keel::bench" in name or name == "main":
        return "bench"
    return "keel" if "keel::" in name else "library"


def colour_of(name, kind):
    """The kind's hue, shaded a little by name: equal names look equal in every picture."""
    hue, saturation, lightness = COLOURS[kind][0]
    shade = hashlib.sha1(name.encode()).digest()[0] / 255 - 0.5
    return f"hsl({hue + 14 * shade:.0f},{saturation}%,{lightness + 8 * shade:.0f}%)"


def fitted(name, width):
    room = int((width - 6) / CHARACTER)
    if room < 3:
        return ""
    return name if len(name) <= room else name[: room - 1] + "…"


def draw(box, name, x, depth, scale, total, height, out):
    width = box.samples * scale
    if width < MINIMUM:
        return
    y = height - LEGEND - (depth + 1) * ROW
    shown = name.removesuffix("_[k]")
    what = f"{shown}{' (kernel)' if shown != name else ''}: {box.samples} samples, " \
           f"{100 * box.samples / total:.2f}%"
    out.append(
        f'<g data-x="{x - MARGIN:.3f}" data-w="{width:.3f}" data-d="{depth}" '
        f'data-n="{escape(shown)}"><title>{escape(what)}</title>'
        f'<rect x="{x:.2f}" y="{y}" width="{max(width - 0.5, 0.1):.2f}" height="{ROW - 1}" rx="2" '
        f'fill="{colour_of(name, kind_of(name, depth))}"/>'
        f'<text x="{x + 3:.2f}" y="{y + ROW - 6}">{escape(fitted(shown, width))}</text></g>')
    for child in sorted(box.above):
        draw(box.above[child], child, x, depth + 1, scale, total, height, out)
        x += box.above[child].samples * scale


def legend(height):
    out, x = [], MARGIN
    for (hue, saturation, lightness), words in COLOURS.values():
        out.append(f'<rect x="{x}" y="{height - 20}" width="12" height="12" rx="2" '
                   f'fill="hsl({hue},{saturation}%,{lightness}%)"/>'
                   f'<text x="{x + 17}" y="{height - 10}">{words}</text>')
        x += 40 + len(words) * CHARACTER
    return out


def svg(root, title):
    width = WIDTH - 2 * MARGIN
    scale = width / root.samples
    height = HEAD + root.depth(MINIMUM / scale) * ROW + LEGEND
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
           f'width="{WIDTH}" height="{height}" font-size="{FONT}" '
           'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace">',
           f'<rect width="{WIDTH}" height="{height}" fill="#fcfcfa"/>',
           f'<text x="{WIDTH / 2}" y="27" font-size="17" text-anchor="middle">{escape(title)}'
           f' — {root.samples} samples</text>',
           '<g id="boxes" fill="#111">']
    draw(root, "all", MARGIN, 0, scale, root.samples, height, out)
    out += ["</g>", *legend(height),
            "<style>g g{cursor:pointer} g g:hover rect{stroke:#222}</style>"]
    script = SCRIPT % {"width": width, "left": MARGIN, "character": CHARACTER}
    out += [f"<script><![CDATA[{script}]]></script>", "</svg>"]
    return "\n".join(out)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--title", default="Flame graph")
    title = options.parse_args().title
    root = Box()
    for line in sys.stdin:
        stack, _, count = line.rstrip("\n").rpartition(" ")
        root.add(stack.split(";"), int(count))
    if root.samples == 0:
        sys.exit("flamegraph: no samples")
    print(svg(root, title))


if __name__ == "__main__":
    main()
