"""What ``umoci stat`` shows to people: documents as indented lines, the history as a table.

`Page` collects the lines. Text that would mislead (control characters, blanks, nothing at all) is quoted as in Go.
"""

from __future__ import annotations

import base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_ESCAPES |= {'"': '\\"', "\\": "\\\\"}
_DUMPED = 256  # bytes of embedded data that are shown

# the config's ``config``: label, field, how it is shown, whether also when it is empty
_SETTINGS = (
    ("User", "User", "text", True),
    ("Entrypoint", "Entrypoint", "lines", False),
    ("Command", "Cmd", "lines", True),
    ("Working Directory", "WorkingDir", "text", False),
    ("Environment", "Env", "lines", False),
    ("Stop Signal", "StopSignal", "text", False),
    ("Exposed Ports", "ExposedPorts", "keys", False),
    ("Volumes", "Volumes", "keys", False),
    ("Labels", "Labels", "map", False),
)


def show(found: dict[str, Any]) -> str:
    """``found`` is what `boxship.tools.umoci.stat.gather` gave."""
    page = Page()
    page.heading("MANIFEST")
    _manifest(page, found["manifest"])
    if "config" in found:
        page.heading("CONFIG")
        if "history" in found:
            _image(page, found["config"]["blob"])
        page.descriptor(found["config"]["descriptor"], 0)
    if "history" in found:
        page.heading("HISTORY")
        page.table(_rows(found["history"]))
    return str(page)


def human_size(size: float) -> str:
    """Four digits and a decimal unit, as docker's tools show it."""
    at = 0
    while size >= 1000 and at < len(_UNITS) - 1:
        size /= 1000
        at += 1
    return f"{size:.4g}{_UNITS[at]}"


def quote(text: str, precise: bool = False) -> str:
    """In quotes when something in it would not show; ``precise``: also blanks, and the empty text."""
    escaped = "".join(_escape(character) for character in text)
    if escaped != text or (precise and (not text or any(one.isspace() for one in text))):
        return f'"{escaped}"'
    return text


def _escape(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


class Page:
    """Lines, indented by tabs."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)

    def heading(self, text: str) -> None:
        if self._lines:
            self._lines.append("")
        self._lines.append(f"== {text} ==")

    def line(self, label: str, value: str | None = None, depth: int = 0) -> None:
        self._lines.append("\t" * depth + label + ":" + ("" if value is None else f" {value}"))

    def text(self, label: str, value: str, depth: int = 0) -> None:
        self.line(label, _word(value), depth)

    def lines(self, label: str, values: list[str], depth: int) -> None:
        if not values:
            self.line(label, "(empty)", depth)
            return
        self.line(label, None, depth)
        self._lines += ["\t" * (depth + 1) + quote(value, True) for value in values]

    def keys(self, label: str, values: dict[str, Any], depth: int) -> None:
        self.line(label, ", ".join(_word(key) for key in sorted(values)) or "(empty)", depth)

    def map(self, label: str, values: dict[str, str], depth: int) -> None:
        self.line(label, None, depth)
        for key in sorted(values):
            self.text(quote(key, True), values[key], depth + 1)

    def descriptor(self, descriptor: dict[str, Any], depth: int) -> None:
        self.line("Descriptor", None, depth)
        depth += 1
        self.text("Media Type", descriptor["mediaType"], depth)
        if descriptor.get("artifactType"):
            self.text("Artifact Type", descriptor["artifactType"], depth)
        self.text("Digest", descriptor["digest"], depth)
        self.text("Size", human_size(descriptor["size"]), depth)
        if descriptor.get("platform"):
            self.platform(descriptor["platform"], depth)
        if descriptor.get("urls"):
            self.lines("URLs", descriptor["urls"], depth)
        if descriptor.get("annotations"):
            self.map("Annotations", descriptor["annotations"], depth)
        if descriptor.get("data"):
            self._dump(base64.b64decode(descriptor["data"]), depth)

    def platform(self, platform: dict[str, Any], depth: int) -> None:
        self.line("Platform", None, depth)
        self.text("OS", platform.get("os", ""), depth + 1)
        if platform.get("os.version"):
            self.text("OS Version", platform["os.version"], depth + 1)
        if platform.get("os.features"):
            self.line("OS Features", ", ".join(_word(one) for one in platform["os.features"]), depth + 1)
        architecture = quote(platform.get("architecture", ""), True)
        if platform.get("variant"):
            architecture += f" ({quote(platform['variant'])})"
        self.line("Architecture", architecture, depth + 1)

    def table(self, rows: list[list[str]]) -> None:
        widths = [max(4, *(len(row[at]) + 1 for row in rows)) for at in range(len(rows[0]) - 1)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            self._lines.append("".join(cells) + row[-1])

    def _dump(self, data: bytes, depth: int) -> None:
        """As xxd does."""
        self.line("Data", f"({len(data)} bytes)", depth)
        indent = "\t" * (depth + 1)
        for at in range(0, min(len(data), _DUMPED), 16):
            row = data[at : min(at + 16, _DUMPED)]
            pairs = " ".join(row[pair : pair + 2].hex().ljust(4) for pair in range(0, 16, 2))
            shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
            self._lines.append(f"{indent}{at:04x}: {pairs}  {shown}")
        if len(data) > _DUMPED:
            self._lines.append(f"{indent}....  (extra {len(data) - _DUMPED} bytes omitted)")


def _word(value: str) -> str:
    return f'"{value}"' if "," in value and quote(value) == value else quote(value, True)


def _manifest(page: Page, found: dict[str, Any]) -> None:
    manifest = found["blob"]
    page.text("Schema Version", str(manifest["schemaVersion"]))
    page.text("Media Type", manifest.get("mediaType", ""))
    if manifest.get("artifactType"):
        page.text("Artifact Type", manifest["artifactType"])
    page.line("Config")
    page.descriptor(manifest["config"], 1)
    if manifest["layers"]:
        page.line("Layers")
        for layer in manifest["layers"]:
            page.descriptor(layer, 1)
    if manifest.get("subject"):
        page.line("Subject")
        page.descriptor(manifest["subject"], 1)
    if manifest.get("annotations"):
        page.map("Annotations", manifest["annotations"], 0)
    page.descriptor(found["descriptor"], 0)


def _image(page: Page, image: dict[str, Any]) -> None:
    if image.get("created"):
        page.text("Created", image["created"])
    page.text("Author", image.get("author", ""))
    page.platform(image, 0)
    page.line("Image Config")
    settings = image.get("config") or {}
    escaped = " (escaped)" if settings.get("ArgsEscaped") else ""
    for label, field, kind, always in _SETTINGS:
        value = settings.get(field)
        if not value and not always:
            continue
        label += escaped if field in ("Entrypoint", "Cmd") else ""
        match kind:
            case "text":
                page.text(label, value or "", 1)
            case "lines":
                page.lines(label, value or [], 1)
            case "keys":
                page.keys(label, value or {}, 1)
            case _:
                page.map(label, value or {}, 1)


def _rows(history: list[dict[str, Any]]) -> list[list[str]]:
    rows = [["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"]]
    for entry in history:
        layer = entry["layer"]
        rows.append(
            [
                layer["digest"] if layer else "<none>",
                quote(entry.get("created") or ""),
                quote(entry.get("created_by", "")),
                human_size(layer["size"]) if layer else "<none>",
                quote(entry.get("comment", "")),
            ]
        )
    return rows
