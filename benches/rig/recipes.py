"""What the images hold, and how their trees are made from packages of Debian, PyPI and npm.

PyPI's and npm's are pinned by version; Debian's are those of its stable release. Nothing
is installed on this machine, and no package's script runs outside mmdebstrap's chroot.
"""

import bisect
import itertools
import os
import random
import shutil
import stat
import tarfile
import zipfile
from contextlib import contextmanager

from .layers import EPOCH, Image
from .paths import CACHE, debian_mirror, output

WORK = CACHE / "work"
DOWNLOADS = CACHE / "downloads"
SUITE = "bookworm"

SERVER = (
    "nginx,libnginx-mod-http-image-filter,libnginx-mod-http-xslt-filter,libnginx-mod-http-geoip,"
    "libnginx-mod-http-perl,ca-certificates,curl,gettext-base,iputils-ping,openssl,procps"
)
# Few and large files, as little compressible as what machine learning images carry.
BIG_WHEELS = [
    "pyside6-addons==6.8.3",
    "pyside6-essentials==6.8.3",
    "jaxlib==0.5.3",
    "opencv-python-headless==4.11.0.86",
    "llvmlite==0.44.0",
    "polars==1.26.0",
    "pyarrow==19.0.1",
    "scipy==1.15.2",
    "ansible==10.7.0",
]
BIG_DEBS = ["wesnoth-1.16-music"]
# Tens of thousands of modules, icons, headers and pages of a few kilobytes.
SMALL_WHEELS = [
    "ansible==10.7.0",
    "plotly==5.24.1",
    "botocore==1.37.20",
    "django==5.1.7",
    "sympy==1.13.3",
    "scipy==1.15.2",
    "pandas==2.2.3",
]
SMALL_PACKS = [
    "openmoji@15.1.0",
    "@phosphor-icons/core@2.1.1",
    "@tabler/icons@3.31.0",
    "date-fns@4.1.0",
    "core-js@3.41.0",
    "aws-sdk@2.1692.0",
    "googleapis@148.0.0",
    "rxjs@7.8.2",
    "typescript@5.8.3",
]
SMALL_DEBS = [
    "libboost1.74-dev",
    "libboost1.74-doc",
    "openjdk-17-doc",
    "kicad-footprints",
    "python3.11-doc",
    "postgresql-doc-15",
]


@contextmanager
def scratch(name):
    """An empty directory, gone afterwards."""
    path = WORK / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def debootstrap(path, packages=""):
    """A minimal Debian tree with some packages, installed by mmdebstrap."""
    include = [f"--include={packages}"] if packages else []
    output(
        "mmdebstrap", "--variant=minbase", "--mode=root", *include,
        "--aptopt=Acquire::Check-Valid-Until \"false\"",
        SUITE, path, f"deb {debian_mirror()} {SUITE} main",
    )  # fmt: skip


def wheels(requirements, target):
    """PyPI packages, unzipped as an installer would but without compiling."""
    for requirement in requirements:
        place = DOWNLOADS / "pypi" / requirement
        if not place.exists():
            part = place.with_suffix(".part")
            output(
                "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", part,
                "--python-version", "3.11", "--implementation", "cp",
                "--abi", "cp311", "--abi", "abi3", "--abi", "none",
                "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64",
                "--platform", "manylinux2014_x86_64", requirement,
            )  # fmt: skip
            part.rename(place)
        for wheel in place.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)


def packs(packages, target):
    """npm packages, each in node_modules under its name."""
    for package in packages:
        place = DOWNLOADS / "npm" / package.replace("/", "_")
        if not place.exists():
            part = place.with_suffix(".part")
            part.mkdir(parents=True, exist_ok=True)
            output("npm", "pack", "--silent", package, cwd=part)
            part.rename(place)
        home = target / package.rpartition("@")[0]
        for pack in place.glob("*.tgz"):
            with tarfile.open(pack) as archive:
                for member in archive:
                    member.name = member.name.partition("/")[2] or "."
                    archive.extract(member, home, filter="data")


def debs(packages, target):
    """Debian packages' files, without their scripts and dependencies."""
    for package in packages:
        place = DOWNLOADS / "deb" / package
        if not place.exists():
            part = place.with_suffix(".part")
            part.mkdir(parents=True, exist_ok=True)
            # As root apt would drop to a user that may not write here.
            output("apt-get", "-o", "APT::Sandbox::User=root", "download", package, cwd=part)
            part.rename(place)
        for deb in place.glob("*.deb"):
            output("dpkg-deb", "-x", deb, target)


def identity(root, name):
    """What of an entry makes two trees differ there. What our own steps wrote is judged by
    its bytes, for its time says only when that was."""
    path = root / name
    status = os.lstat(path)
    what = None
    if stat.S_ISLNK(status.st_mode):
        what = os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        what = int(status.st_mtime) if status.st_mtime < EPOCH else path.read_bytes()
    return (status.st_mode, status.st_uid, status.st_gid, what)


def names(root):
    """Every path below a root."""
    found = set()
    for directory, directories, files in os.walk(root):
        found.update(os.path.relpath(os.path.join(directory, n), root) for n in directories + files)
    return found


def changed(old, new):
    """The paths of `new` that `old` has not, or has otherwise."""
    before, after = names(old), names(new)
    return [n for n in after if n not in before or identity(old, n) != identity(new, n)]


def conventional(image, server):
    """The two small layers on top of a server: its own files, then some removals."""

    def own(layer):
        for directory in ("docker-entrypoint.d", "srv", "srv/www"):
            layer.directory(directory)
        for step in ("10-listen.sh", "20-envsubst.sh", "30-tune.sh"):
            layer.file(f"docker-entrypoint.d/{step}", b"#!/bin/sh\nset -e\nexit 0\n" * 40, 0o755)
        layer.file("srv/www/index.html", b"<!doctype html><title>It serves</title>\n" * 20)

    def removals(layer):
        for name in ("etc", "etc/apt"):
            layer.path_of(server, name)
        layer.file("etc/apt/.wh.sources.list", b"")
        for name in ("var", "var/www", "var/www/html"):
            layer.path_of(server, name)
        layer.file("var/www/html/.wh..wh..opq", b"")
        layer.file("var/www/html/index.html", b"<!doctype html><title>Ours</title>\n")

    image.layer(own)
    image.layer(removals)


def nginx_and_layers61():
    """The server in 4 layers, and the same files spread over 61."""
    with scratch("base") as base, scratch("server") as server:
        debootstrap(base)
        debootstrap(server, SERVER)
        added = changed(base, server)
        image = Image("nginx")
        image.tree(base)
        image.tree(server, added)
        conventional(image, server)
        yield image.save()

        image = Image("layers61")
        image.tree(base)
        for part in slices(server, [n for n in added if not (server / n).is_dir()], 58):
            image.tree(server, part)
        conventional(image, server)
        yield image.save()


def slices(root, files, count):
    """Some files in `count` runs of about the same number of bytes."""
    files = sorted(files)
    ends, total = [], 0
    for name in files:
        total += os.lstat(os.path.join(root, name)).st_size + 512
        ends.append(total)
    cuts = [0]
    for number in range(1, count):
        # One file may fill several runs; none is left empty for that.
        cuts.append(max(cuts[-1] + 1, bisect.bisect_left(ends, total * number // count)))
    cuts.append(len(files))
    return [files[a:b] for a, b in itertools.pairwise(cuts)]


def small():
    """One layer of very many small files."""
    with scratch("small") as tree:
        packs(SMALL_PACKS, tree / "app" / "node_modules")
        wheels(SMALL_WHEELS, tree / "usr" / "lib" / "python3" / "dist-packages")
        debs(SMALL_DEBS, tree)
        image = Image("small")
        image.tree(tree)
        yield image.save()


def big():
    """One layer of large files."""
    with scratch("big") as tree:
        wheels(BIG_WHEELS, tree / "usr" / "lib" / "python3" / "dist-packages")
        debs(BIG_DEBS, tree)
        image = Image("big")
        image.tree(tree)
        yield image.save()


class Filler:
    """File contents that gzip brings to about 45%, the same in every run."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        words = [self.random.randbytes(6).hex()[: 3 + n % 9] for n in range(3000)]
        self.text = " ".join(self.random.choices(words, k=40000)).encode()

    def content(self, size):
        """`size` bytes: of each 4 KiB a quarter noise, the rest text."""
        parts = []
        for _ in range(0, size, 4096):
            start = self.random.randrange(len(self.text) - 3072)
            parts += (self.random.randbytes(1024), self.text[start : start + 3072])
        return b"".join(parts)[:size]


def made(name, layers, files, size):
    """An image of `layers` layers that hold `files` files of `size` bytes between them."""
    image, filler = Image(name), Filler(name.partition("-")[0])
    for number in range(layers):
        mine = range(files * number // layers, files * (number + 1) // layers)

        def fill(layer, mine=mine):
            layer.directory("data")
            for group in sorted({n // 500 for n in mine}):
                layer.directory(f"data/{group:04}")
                for n in mine:
                    if n // 500 == group:
                        layer.file(f"data/{group:04}/{n:06}", filler.content(size))

        image.layer(fill)
    return image.save()


# Each curve changes one thing. The layers' curve keeps the bytes: 4000 files, 100 MB.
CURVES = {
    "layers": [(f"layers-{n}", n, 4000, 25_000) for n in (1, 10, 61, 125)],
    "files": [(f"files-{k}k", 1, k * 1000, 1024) for k in (1, 10, 150)],
    "bytes": [("bytes-10m", 1, 2, 5_000_000), ("bytes-100m", 1, 20, 5_000_000)]
    + [("bytes-1g", 1, 200, 5_000_000), ("bytes-4g", 1, 800, 5_000_000)],
}
LARGE = {"bytes-1g", "bytes-4g"}  # built on request only
STANDARD = {"nginx": nginx_and_layers61, "layers61": nginx_and_layers61, "small": small, "big": big}
