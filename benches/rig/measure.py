"""One measurement: wall, cpu and memory of a command and of the daemon that works for it."""

import os
import subprocess
import time
from pathlib import Path
from statistics import median
from tempfile import NamedTemporaryFile

TICK = os.sysconf("SC_CLK_TCK")


def family(root):
    """A process and its living descendants."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_of(root):
    """Seconds that a process, its descendants and those they reaped have used."""
    total = 0
    for pid in family(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / TICK


def peak_of(root):
    """Sum of the peak resident sizes, in KiB, of a process and its descendants."""
    total = 0
    for pid in family(root):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return total


def forget_peaks(root):
    """Starts the peaks of a daemon's processes anew."""
    for pid in family(root):
        try:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        except OSError:
            continue


def measure(command, daemon=None, env=None, cwd=None):
    """Runs a command; wall seconds, cpu seconds and peak RSS in KiB, the daemon's included.

    time(1) stands between, since a child's ru_maxrss starts at the size of the process that
    forked it, and this one is larger than some of what is measured. The peak is the largest
    process of the command plus the daemon's, so for a command of several processes at once
    it is too small rather than too large.
    """
    os.sync()
    time.sleep(0.2)
    if daemon:
        forget_peaks(daemon)
    before = cpu_of(daemon) if daemon else 0
    with NamedTemporaryFile("r") as sheet, NamedTemporaryFile("w+") as said:
        words = ["time", "-q", "-f", "%U %S %M", "-o", sheet.name, *map(str, command)]
        start = time.monotonic()
        code = subprocess.call(words, stdout=said, stderr=said, env=env, cwd=cwd)
        wall = time.monotonic() - start
        if code:
            said.seek(0)
            raise RuntimeError(f"{' '.join(words[6:])}\nfailed ({code}): {said.read()[-2000:]}")
        user, system, peak = sheet.read().split()[-3:]
    cpu, rss = float(user) + float(system), int(peak)
    if daemon:
        cpu += cpu_of(daemon) - before
        rss += peak_of(daemon)
    return {"wall": round(wall, 4), "cpu": round(cpu, 3), "rss": rss}


def middle(runs):
    """The medians of some runs, and how far their walls lie apart."""
    result = {key: median(run[key] for run in runs) for key in ("wall", "cpu", "rss")}
    walls = [run["wall"] for run in runs]
    return result | {"min": min(walls), "max": max(walls), "n": len(runs)}
