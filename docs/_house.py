"""The picture of the house: its rooms as boxes on their floors, imports as arrows."""

import sys
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from _rooms import FLOOR, MODULES, imports, room_of, tree_of  # noqa: E402

import skanomaly  # noqa: E402

WIDTH, STEP, BOX, MARGIN = 1000, 74, 28, 20  # pixels: of the picture, a floor, a box
LETTER = 7.5  # pixels, the width of a letter of a box


def rooms_imported():
    """For each room, the rooms that it imports from, in functions and for type checkers too."""
    found = {room: set() for room in FLOOR}
    for name, path in MODULES.items():
        if room := room_of(name):
            found[room] |= {room_of(target) for target in imports(tree_of(path))} - {None, room}
    return found


def without_detours(graph):
    """The graph without each arrow whose end is also reached through another room."""

    def reached(room):
        return {room}.union(*(reached(below) for below in graph[room]))

    beyond = {room: set().union(*(reached(b) - {b} for b in graph[room])) for room in graph}
    return {room: graph[room] - beyond[room] for room in graph}


def places():
    """The middle of each box, its width added: floors from the top, rooms evenly spread."""
    found = {}
    for floor in sorted(set(FLOOR.values())):
        rooms = [room for room in FLOOR if FLOOR[room] == floor]
        widths = [LETTER * len(room) + 16 for room in rooms]
        gap = (WIDTH - sum(widths)) / (len(rooms) + 1)
        left = gap
        for room, width in zip(rooms, widths, strict=True):
            found[room] = (left + width / 2, MARGIN + BOX / 2 + STEP * floor, width)
            left += width + gap
    return found


def picture(graph):
    """The graph as SVG."""
    at = places()
    height = max(y for _, y, _ in at.values()) + BOX / 2 + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        'font-family="monospace" font-size="12.5">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#69c"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>',
    ]
    for room in graph:
        x, y, _ = at[room]
        for below in sorted(graph[room]):
            to_x, to_y, _ = at[below]
            start, end = y + BOX / 2, to_y - BOX / 2
            bend = min(STEP / 2, (end - start) / 2)
            lines.append(
                f'<path d="M{x:.0f},{start:.0f} C{x:.0f},{start + bend:.0f} {to_x:.0f},'
                f'{end - bend:.0f} {to_x:.0f},{end:.0f}" fill="none" stroke="#69c" '
                'stroke-opacity="0.7" marker-end="url(#tip)"/>'
            )
    for room, (x, y, width) in at.items():
        shade = "#fd9" if room in skanomaly.__all__ else "#eee"
        lines += [
            f'<rect x="{x - width / 2:.1f}" y="{y - BOX / 2:.1f}" width="{width:.1f}" '
            f'height="{BOX}" rx="4" fill="{shade}" stroke="#555"/>',
            f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(room)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def draw(path):
    """Write the picture, from the imports as they are now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(picture(without_detours(rooms_imported())), encoding="utf-8")
