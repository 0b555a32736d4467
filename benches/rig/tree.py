"""The file system that an image makes, read back from each tool's store and described line
by line, so that two tools' trees can be compared.

The stores are read as the formats document them, not by their own tools' mounts: an
overlay mount over the layers' directories is what a container would get.
"""

import hashlib
import json
import os
import stat
import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


def lines(root):
    """Path -> everything that an image says about it."""
    found, links = {}, {}
    for directory, directories, files in os.walk(root):
        directories.sort()
        for name in sorted(directories + files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            shown = os.path.relpath(path, root)
            found[shown] = describe(path, shown, status, links)
    return found


def describe(path, shown, status, links):
    """One entry: type, mode, owner, mtime, content, link target, xattrs, hard link."""
    kind = stat.S_IFMT(status.st_mode)
    parts = [f"{status.st_mode:o}", f"{status.st_uid}:{status.st_gid}", f"{status.st_mtime_ns}"]
    if kind == stat.S_IFLNK:
        # A symlink's own time is part of its layer, but umoci and tar have it differ by tool.
        parts.append(f"-> {os.readlink(path)}")
    elif kind == stat.S_IFREG:
        with open(path, "rb") as content:
            parts += [str(status.st_size), hashlib.file_digest(content, "sha256").hexdigest()]
        if status.st_nlink > 1:
            first = links.setdefault((status.st_dev, status.st_ino), shown)
            parts.append(f"same as {first}")
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        parts.append(f"device {status.st_rdev}")
    for key in sorted(os.listxattr(path, follow_symlinks=False)):
        if ".overlay." not in key:
            parts.append(f"{key}={os.getxattr(path, key, follow_symlinks=False).hex()}")
    return " ".join(parts)


def fingerprint(tree):
    """One hash of a whole tree."""
    whole = hashlib.sha256()
    for path in sorted(tree):
        whole.update(f"{path}\0{tree[path]}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def differences(ours, theirs, limit=6):
    """What two trees differ in, some of it, in words."""
    paths = [p for p in sorted(ours.keys() | theirs.keys()) if ours.get(p) != theirs.get(p)]
    shown = [f"{p}: {ours.get(p, 'absent')} | {theirs.get(p, 'absent')}" for p in paths[:limit]]
    return len(paths), shown


@contextmanager
def overlay(lowers, cwd="/"):
    """A read-only overlay mount of some directories, top first, relative to `cwd`."""
    with TemporaryDirectory() as place:
        # overlayfs wants two layers at least; an empty one at the bottom adds nothing.
        empty, target = Path(place, "empty"), Path(place, "merged")
        empty.mkdir()
        target.mkdir()
        options = "ro,lowerdir=" + ":".join([*map(str, lowers), str(empty)])
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, target], check=True, cwd=cwd)
        try:
            yield target
        finally:
            subprocess.run(["umount", target], check=True)


def chain(diff_ids):
    """The chain ids of an image's layers, base first."""
    ids = [diff_ids[0]]
    for diff_id in diff_ids[1:]:
        ids.append("sha256:" + hashlib.sha256(f"{ids[-1]} {diff_id}".encode()).hexdigest())
    return ids


@contextmanager
def docker_store(root, image):
    """The tree of an image in a Docker data root, which is rpull's root too."""
    driver, lowers = root / "image" / "overlay2", []
    for chain_id in chain([layer["diff_id"] for layer in image["layers"]]):
        cache = (driver / "layerdb" / "sha256" / chain_id[7:] / "cache-id").read_text()
        lowers.insert(0, "l/" + (root / "overlay2" / cache / "link").read_text())
    named = json.loads((driver / "repositories.json").read_text())["Repositories"]
    if not any(image["name"] in repository for repository in named):
        raise RuntimeError(f"{root}: repositories.json does not name {image['name']}")
    with overlay(lowers, root / "overlay2") as tree:
        yield tree


@contextmanager
def podman_store(root, image):
    """The tree of an image in containers/storage. Podman keeps the compressed digests."""
    layers = {l["id"]: l for l in json.loads((root / "overlay-layers/layers.json").read_text())}
    top = next(
        record["layer"]
        for record in json.loads((root / "overlay-images/images.json").read_text())
        if any(image["name"] in name for name in record["names"])
    )
    lowers = []
    while top:
        lowers.append("l/" + (root / "overlay" / top / "link").read_text())
        top = layers[top].get("parent")
    with overlay(lowers, root / "overlay") as tree:
        yield tree
