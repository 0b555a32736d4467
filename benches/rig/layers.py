"""Layers as `docker build` writes them: a sorted tar, ustar where that suffices and PAX
where it does not, through `gzip -6`.

Everything that could differ between two builds of the same packages is pinned: order,
mtimes (clamped to EPOCH), gzip's header.
"""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tarfile

from .paths import IMAGES

EPOCH = 1735689600  # 2025-01-01; a file made by our own steps is not younger


class Layer:
    """One layer being written: entries go in, NN.tar.gz and its digests come out."""

    def __init__(self, path):
        self.path = path
        self.hash = hashlib.sha256()
        self.bytes = 0
        self.files = 0
        self.links = {}
        self.target = open(path, "wb")  # noqa: SIM115 - closed by `close`
        self.gzip = subprocess.Popen(["gzip", "-6", "-n", "-c"], stdin=subprocess.PIPE, stdout=self.target)

    def write(self, data):
        """Tar bytes, on their way to the hash and to gzip."""
        self.hash.update(data)
        self.bytes += len(data)
        self.gzip.stdin.write(data)

    def member(self, info, content=b""):
        """One entry; `content` is bytes or an open file of `info.size` bytes."""
        self.files += 1
        self.write(header(info))
        if not info.isreg():
            return
        if isinstance(content, bytes):
            self.write(content)
        else:
            for block in iter(lambda: content.read(1 << 20), b""):
                self.write(block)
        self.write(b"\0" * (-info.size % tarfile.BLOCKSIZE))

    def file(self, name, content, mode=0o644):
        """A regular file that no package brought."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(content), mode, EPOCH
        self.member(info, content)

    def directory(self, name):
        """A directory that no package brought."""
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, EPOCH
        self.member(info)

    def path_of(self, root, name):
        """The entry `name` of a tree, as it lies there. Sockets have no place in a tar."""
        path = os.path.join(root, name)
        status = os.lstat(path)
        info = tarfile.TarInfo(name)
        info.mode = stat.S_IMODE(status.st_mode)
        info.uid, info.gid = status.st_uid, status.st_gid
        info.mtime = min(int(status.st_mtime), EPOCH)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            return
        if kind == stat.S_IFLNK:
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif kind == stat.S_IFDIR:
            info.type = tarfile.DIRTYPE
        elif kind == stat.S_IFREG:
            first = self.links.setdefault(status.st_ino, name) if status.st_nlink > 1 else name
            if first != name:
                info.type, info.linkname = tarfile.LNKTYPE, first
            else:
                info.size = status.st_size
        else:
            info.type = {stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE}.get(
                kind, tarfile.BLKTYPE
            )
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        if kind != stat.S_IFLNK:
            info.pax_headers = {
                f"SCHILY.xattr.{key}": os.getxattr(path, key).decode("utf-8", "surrogateescape")
                for key in sorted(os.listxattr(path))
            }
        if info.size:
            with open(path, "rb") as content:
                self.member(info, content)
        else:
            self.member(info)

    def close(self):
        """Ends the tar; returns what a manifest and a reader need to know."""
        self.write(b"\0" * 2 * tarfile.BLOCKSIZE)
        self.gzip.stdin.close()
        if self.gzip.wait():
            raise SystemExit(f"gzip failed for {self.path}")
        self.target.close()
        with open(self.path, "rb") as blob:
            digest = hashlib.file_digest(blob, "sha256").hexdigest()
        return {
            "file": self.path.name,
            "digest": f"sha256:{digest}",
            "size": self.path.stat().st_size,
            "diff_id": f"sha256:{self.hash.hexdigest()}",
            "unpacked": self.bytes,
            "entries": self.files,
        }


def header(info):
    """The header blocks of an entry: ustar if it holds everything, as Go's writer does."""
    names = info.name + info.linkname
    if not info.pax_headers and names.isascii():
        try:
            return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
        except ValueError:
            pass
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def walk(root):
    """Every path below a root, relative and sorted, parents first."""
    for directory, directories, files in os.walk(root):
        directories.sort()
        names = sorted(files + directories)
        yield from (os.path.relpath(os.path.join(directory, name), root) for name in names)


def with_parents(names):
    """Some paths, each preceded by its directories as Docker's diff has them."""
    seen = set()
    for name in sorted(names):
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path not in seen:
                seen.add(path)
                yield path


class Image:
    """An image being built below `images/NAME`."""

    def __init__(self, name):
        self.name = name
        self.directory = IMAGES / name
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.layers = []

    def layer(self, fill):
        """Adds the layer that `fill(layer)` writes."""
        layer = Layer(self.directory / f"{len(self.layers):03}.tar.gz")
        fill(layer)
        self.layers.append(layer.close())

    def tree(self, root, names=None):
        """Adds a layer of a whole tree, or of some paths in it."""
        chosen = walk(root) if names is None else with_parents(names)

        def fill(layer):
            for name in sorted(chosen):
                layer.path_of(root, name)

        self.layer(fill)

    def save(self):
        """Writes image.json, the mark that the image is whole."""
        image = {"name": self.name, "layers": self.layers}
        (self.directory / "image.json").write_text(json.dumps(image, indent=1))
        return image
