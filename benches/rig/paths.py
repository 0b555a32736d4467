"""Where things lie, and how a helper program is run."""

import os
import subprocess
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("RPULL_BENCH_DIR", REPO / "target" / "bench")).resolve()
SID = CACHE / "sid"  # the peers' tree, built by benches/peers
IMAGES = CACHE / "images"  # one directory an image: NN.tar.gz and image.json
RESULTS = CACHE / "results"  # raw figures, one JSON file a section
DOCUMENT = REPO / "docs" / "BENCHMARKS.md"
TMPFS = Path("/dev/shm/rpull-bench")


def output(*command, **kwargs):
    """Standard output of a command that has to succeed."""
    return subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True, **kwargs
    ).stdout


def debian_mirror():
    """The Debian mirror that this machine's apt uses; nothing here names one."""
    targets = output("apt-get", "indextargets", "--format", "$(SITE) $(ORIGIN) $(LABEL)")
    for line in targets.splitlines():
        site, origin, label = (line.split() + ["", "", ""])[:3]
        if (origin, label) == ("Debian", "Debian"):
            return site
    raise SystemExit("apt knows no Debian mirror: run apt-get update first")
