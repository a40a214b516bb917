"""Model files that are taken apart and made up."""

import hashlib
import json
import zipfile


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_signed(path, members, compression=zipfile.ZIP_STORED):
    """A zip archive whose digest is right, as whoever makes a file up can make it."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.comment = b"0" * 64
        for name, data in members:
            archive.writestr(name, data)
    data = path.read_bytes()[:-64]
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())


def changed_manifest(path, **changes):
    members = members_of(path)
    manifest = {**json.loads(members["manifest.json"]), **changes}
    members["manifest.json"] = json.dumps(manifest, indent=2).encode()
    write_signed(path, members.items())
