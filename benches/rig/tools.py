"""rpull, the peers and the floor: how each is started, told to pull, and read back."""

import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from . import tree
from .paths import CACHE, IMAGES, REPO, SID, output

RPULL = Path(os.environ.get("RPULL", REPO / "target" / "release" / "rpull")).resolve()


def name_of(image, address):
    """What a tool is asked to pull."""
    return f"{address}/{image['name']}:latest"


class Tool:
    """What a tool is to the runner. `store` is the directory that it may fill."""

    needs = None  # a program in the peers' tree
    reader = None  # what shows the image that lies in the store, below the tool's name

    def __init__(self, name):
        self.name = name

    def there(self):
        """Whether it can be measured here."""
        return self.needs is None or (SID / self.needs).exists()

    @contextmanager
    def ready(self, store):
        """Brings up whatever is not to be timed; yields the daemon's pid, or None."""
        del store
        yield None

    def command(self, store, address, image):
        """The command that is timed."""
        raise NotImplementedError

    @contextmanager
    def merged(self, store, image):
        """The image's file system, while the daemon still runs; None if there is none."""
        if self.reader is None:
            yield None
            return
        with self.reader(store / self.name, image) as found:
            yield found


class Rpull(Tool):
    """The release build of this repository, or the program that RPULL names."""

    words = ()
    reader = staticmethod(tree.docker_store)

    def there(self):
        return RPULL.exists()

    def command(self, store, address, image):
        return [RPULL, "--root", store / "rpull", *self.words, "-q", name_of(image, address)]


class Peer(Tool):
    """A tool of the peers' tree, reached through a holder of its mount namespace."""

    namespace = None

    @contextmanager
    def ready(self, store):
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", REPO / "benches" / "enter", SID, store, "sleep", "inf"]
        )
        try:
            while Path(f"/proc/{holder.pid}/comm").read_text() != "sleep\n":
                if holder.poll() is not None:
                    raise RuntimeError("benches/enter ended")
                time.sleep(0.02)
            self.namespace = holder.pid
            with self.started(store) as daemon:
                yield daemon
        finally:
            holder.kill()
            holder.wait()

    @contextmanager
    def started(self, store):
        """The daemon, for tools that have one."""
        del store
        yield None

    def inside(self, *words):
        """A command as it is said inside the tree."""
        return ["nsenter", "-t", str(self.namespace), "-m", "--wdns=/", *words]

    @contextmanager
    def daemon(self, words, ready):
        """A daemon inside the tree, once `ready` succeeds."""
        with open(CACHE / f"{self.name.split()[0]}.log", "ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *self.inside(*words)], stdout=log, stderr=log
            )
        try:
            for _ in range(300):
                if subprocess.run(self.inside(*ready), check=False, capture_output=True).returncode == 0:
                    break
                if process.poll() is not None:
                    raise RuntimeError(f"{words[0]} ended: see {log.name}")
                time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()
            process.wait(60)


class Docker(Peer):
    """dockerd with the overlay2 driver, and unpigz where it is installed."""

    needs = "usr/sbin/dockerd"
    reader = staticmethod(tree.docker_store)
    socket = "unix:///run/docker-bench.sock"

    @contextmanager
    def started(self, store):
        words = [
            "dockerd", "--data-root", "/data/docker", "--exec-root", "/run/docker-bench",
            "-H", self.socket, "--pidfile", "/run/docker-bench.pid", "--bridge", "none",
            "--iptables=false", "--ip6tables=false", "--storage-driver", "overlay2",
        ]  # fmt: skip
        with self.daemon(words, ["docker", "-H", self.socket, "version"]) as pid:
            yield pid

    def command(self, store, address, image):
        return self.inside("docker", "-H", self.socket, "pull", "-q", name_of(image, address))


class Containerd(Peer):
    """containerd's own client; its daemon inflates with igzip where it is installed."""

    needs = "usr/bin/containerd"
    socket = "/run/containerd-bench.sock"

    def ctr(self, *words):
        """A command of ctr."""
        return self.inside("ctr", "-a", self.socket, *words)

    @contextmanager
    def started(self, store):
        words = ["containerd", "-c", "/etc/containerd/bench.toml"]
        with self.daemon(words, ["ctr", "-a", self.socket, "version"]) as pid:
            yield pid

    def command(self, store, address, image):
        return self.ctr("image", "pull", "--plain-http", name_of(image, address))

    @contextmanager
    def merged(self, store, image):
        top = tree.chain([layer["diff_id"] for layer in image["layers"]])[-1]
        output(*self.ctr("snapshot", "view", "bench", top))
        said = output(*self.ctr("snapshot", "mounts", "/mnt", "bench"))
        lowers = re.search(r"lowerdir=([^,\s]+)", said) or re.search(r"bind (\S+)", said)
        places = [p.replace("/data", str(store), 1) for p in lowers[1].split(":")]
        # Whole paths of 61 layers do not fit into the page that mount(2) takes.
        home = os.path.commonpath(places)
        with tree.overlay([os.path.relpath(p, home) for p in places], home) as found:
            yield found


class Podman(Peer):
    """podman's rootful overlay store."""

    needs = "usr/bin/podman"
    reader = staticmethod(tree.podman_store)
    program = ("podman", "--root", "/data/podman", "--runroot", "/run/podman", "--storage-driver", "overlay")

    @contextmanager
    def started(self, store):
        output(*self.inside(*self.program, "info"))  # makes its database
        yield None

    def command(self, store, address, image):
        name = name_of(image, address)
        return self.inside(*self.program, "pull", "-q", "--tls-verify=false", name)


class Skopeo(Peer):
    """skopeo alone: the network and one hash, nothing unpacked."""

    needs = "usr/bin/skopeo"

    def copy(self, address, image):
        """skopeo's words."""
        source = f"docker://{name_of(image, address)}"
        return ["skopeo", "copy", "-q", "--src-tls-verify=false", source, "oci:/data/oci:x"]

    def command(self, store, address, image):
        return self.inside(*self.copy(address, image))


class Umoci(Skopeo):
    """skopeo, then umoci: an unpacked tree without a daemon."""

    needs = "usr/bin/umoci"

    def command(self, store, address, image):
        fetch = " ".join(self.copy(address, image))
        return self.inside("sh", "-c", f"{fetch} && umoci unpack --image /data/oci:x /data/bundle")

    @contextmanager
    def merged(self, store, image):
        yield store / "bundle" / "rootfs"


class Floor(Tool):
    """A decompressor piped into tar, over the layers as local files: no network, no check."""

    def __init__(self, name, inflate):
        super().__init__(name)
        self.inflate = inflate

    def there(self):
        return shutil.which(self.inflate[0]) is not None

    @contextmanager
    def ready(self, store):
        (store / "blobs").mkdir()
        yield None

    def command(self, store, address, image):
        # The copies are made here, before the clock starts, on the medium that is measured.
        for layer in image["layers"]:
            shutil.copy(IMAGES / image["name"] / layer["file"], store / "blobs")
            (store / "floor" / layer["file"]).mkdir(parents=True)
        script = 'for f in blobs/*; do "$@" "$f" | tar -x -C "floor/${f#blobs/}" || exit 1; done'
        return ["env", "-C", store, "bash", "-o", "pipefail", "-c", script, "floor", *self.inflate]


TOOLS = [
    Rpull("rpull"),
    Docker("docker"),
    Containerd("containerd"),
    Podman("podman"),
    Umoci("skopeo+umoci"),
    Skopeo("skopeo"),
    Floor("igzip|tar", ["igzip", "-dc"]),
    Floor("gzip|tar", ["gzip", "-dc"]),
]


def chosen(names):
    """The tools of these names (all if None) that are there; says which are not."""
    tools = [t for t in TOOLS if names is None or t.name in names]
    for tool in tools:
        if not tool.there():
            print(f"not installed, left out: {tool.name}", flush=True)
    return [t for t in tools if t.there()]


@contextmanager
def emptied(store):
    """An empty store directory, gone afterwards. Below the cache it is a file system of its
    own: ext4 skips inodes that were deleted in the last minutes, so in one that is shared
    each tool would pay for what the tool before it left to delete."""
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir(parents=True)
    image = CACHE / "store.ext4" if store.is_relative_to(CACHE) else None
    if image:
        make_file_system(image)
        output("mount", "-o", "loop", image, store)
        (store / "lost+found").rmdir()
    try:
        yield store
    finally:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        for place in (line.split()[1] for line in reversed(mounts)):
            if place.startswith(f"{store}/"):
                subprocess.run(["umount", "-l", place], check=False)
        if image:
            output("umount", "-l", store)
            image.unlink()
        shutil.rmtree(store)


def make_file_system(image):
    """An empty ext4 in a sparse file, with nothing left to initialise behind its user's back."""
    image.unlink(missing_ok=True)
    with open(image, "wb") as file:
        file.truncate(24 << 30)
    output("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", image)
