"""docs/BENCHMARKS.md from the raw figures of each section; nothing in it is typed by hand."""

import json
import os
import platform
import subprocess
from pathlib import Path

from .measure import middle
from .paths import DOCUMENT, IMAGES, REPO, RESULTS, SID, output
from .tools import RPULL

STANDARD = ("nginx", "small", "big", "layers61")
INTRODUCTION = """\
# Benchmarks

Written by `benches/run`; do not edit. To repeat it, see `benches/README.md`.

The registry is docker-registry on loopback with its data on disk. Every run starts with an empty
store (on disk: a fresh loop-mounted ext4). Before the clock starts, daemons run, the blobs are in
the page cache, `sync` has completed, and all free memory was touched once. The tools alternate from
run to run. Wall and CPU times are in seconds; CPU time is that of the client and of the daemon's
process tree, without the registry. RSS is the peak of the client's largest process plus that of the
daemon's processes, in MiB. Figures are medians.
"""


def save(section, figures):
    """Adds figures to a section's file: dictionaries merge, the rest is replaced."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{section}.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(merged(old, figures), indent=1))


def merged(old, new):
    """`new` over `old`, dictionary by dictionary."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}


def load(section):
    """A section's figures, if it was measured."""
    path = RESULTS / f"{section}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def first_line(*command):
    """What a program says of itself; nothing if it is not there."""
    try:
        said = subprocess.run([str(c) for c in command], check=False, capture_output=True, text=True)
    except OSError:
        return ""
    return (said.stdout or said.stderr).strip().partition("\n")[0]


def machine():
    """The machine and every program's version."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(
        (l.partition(":")[2].strip() for l in cpuinfo if l.startswith("model name")),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    facts = {
        "cpu": f"{os.cpu_count()} x {cpu}",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "rpull": f"{first_line(RPULL, '--version')}, commit "
        + first_line("git", "-C", REPO, "rev-parse", "--short", "HEAD"),
        "igzip, gzip, tar (floor)": ", ".join(
            first_line(program, "--version") for program in ("igzip", "gzip", "tar")
        ),
        "docker-registry": first_line("docker-registry", "--version").split()[-1],
    }
    if (SID / "var/lib/dpkg/status").exists():
        packages = ("docker.io", "containerd", "podman", "skopeo", "umoci", "isal", "pigz")
        said = output("dpkg-query", f"--admindir={SID}/var/lib/dpkg", "-W", *packages)
        facts["peers (Debian sid)"] = ", ".join(l.replace("\t", " ") for l in said.splitlines())
    return facts


def table(header, rows):
    """A Markdown table, first column to the left."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def mib(kib):
    """KiB as whole MiB."""
    return f"{kib / 1024:.0f}"


def describe(name):
    """An image in words."""
    path = IMAGES / name / "image.json"
    if not path.exists():
        return name
    layers = json.loads(path.read_text())["layers"]
    size, whole = (sum(l[key] for l in layers) / 1e6 for key in ("size", "unpacked"))
    entries = sum(l["entries"] for l in layers)
    plural = "s" if len(layers) > 1 else ""
    return (
        f"{name}: {len(layers)} layer{plural}, {entries} entries, {size:.0f} MB gz, {whole:.0f} MB unpacked"
    )


def pull_section(figures):
    """Every tool on every image, and rpull's ratios."""
    for medium, images in figures.get("media", {}).items():
        yield f"## Pulling, store on {medium}\n"
        for name in sorted(images, key=lambda n: STANDARD.index(n) if n in STANDARD else 9):
            yield f"### {describe(name)}\n"
            yield comparison(images[name])


def comparison(runs_of_tools):
    """The runs of each tool, and rpull's ratios."""
    results = {tool: middle(runs) for tool, runs in runs_of_tools.items() if runs}
    ours = results.get("rpull")
    rows = []
    for tool, m in results.items():
        times = f"{m['wall'] / ours['wall']:.2f}" if ours else "-"
        cost = f"{m['cpu'] / ours['cpu']:.2f}" if ours and ours["cpu"] else "-"
        rows.append(
            [tool, f"{m['wall']:.2f}", f"{m['min']:.2f}-{m['max']:.2f}", f"{m['cpu']:.2f}",
             mib(m["rss"]), times, cost, m["n"]]
        )  # fmt: skip
    return table(
        ["tool", "wall", "spread", "cpu", "RSS", "wall / rpull's", "cpu / rpull's", "runs"], rows
    )


def local_section(figures):
    """Commands that need no registry."""
    for image, commands in figures.get("images", {}).items():
        yield "## Commit, save, load and export\n"
        yield f"{describe(image)}; store on tmpfs.\n"
        for name, runs in commands.items():
            yield f"### {name}\n"
            yield comparison(runs)


def check_section(figures):
    """Whether all tools made the same tree."""
    if figures.get("trees"):
        yield "## The same tree\n"
        yield (
            "Each tool's store is mounted as for a container. The type, mode, "
            "owner, mtime, content, link target, hard links and xattrs of every path are hashed.\n"
        )
        rows = [
            [name, tool, f"`{tree['hash'][:16]}`", tree["paths"], tree["differs"]]
            for name, tools in figures["trees"].items()
            for tool, tree in tools.items()
        ]
        yield table(["image", "tool", "tree", "paths", "paths that differ from the reference"], rows)
        notes = [
            f"- {name}, {tool}: `{line}`"
            for name, tools in figures["trees"].items()
            for tool, tree in tools.items()
            for line in tree.get("shown", [])
        ]
        if notes:
            yield "Where trees differ (reference | tool), the first few:\n"
            yield "\n".join(notes) + "\n"


def present_section(figures):
    """Pulling what is there already."""
    if figures:
        yield "## An image that is in the store\n"
        yield "nginx on tmpfs; time of the whole process in milliseconds.\n"
        rows = [
            [how, f"{m['median']:.1f}", f"{m['min']:.1f}", f"{m['p95']:.1f}", m["runs"], m["requests"]]
            for how, m in figures["ways"].items()
        ]
        yield table(["pulled by", "median", "min", "95th", "runs", "requests of one run"], rows)


def curve_section(figures):
    """How cost grows with layers, files and bytes."""
    for axis, images in figures.get("axes", {}).items():
        yield f"## Growth with {axis}\n"
        rows = []
        for name, tools in images.items():
            ours, floor = (middle(tools[t]) for t in ("rpull", "igzip|tar"))
            rows.append(
                [describe(name), f"{ours['wall']:.2f}", f"{ours['cpu']:.2f}", mib(ours["rss"]),
                 f"{floor['wall']:.2f}", f"{floor['wall'] / ours['wall']:.2f}"]
            )  # fmt: skip
        yield table(["image", "wall", "cpu", "RSS", "igzip|tar wall", "igzip|tar / rpull"], rows)


def scale_section(figures):
    """What commands cost in a store of many layers."""
    if figures:
        yield "## Growth with the store\n"
        yield (
            "Commands in a store on tmpfs that has the given number of other layers, in stacks of ten: a pull "
            "of ten layers (10 MB), the same pull when the image is present, `images`, and `rm` of the "
            "image. Median times in milliseconds, and the files and directories that the command opens. *First "
            "command* is a pull after another program added the layers.\n"
        )
        commands = list(next(iter(figures["rows"].values()))["commands"])
        rows = []
        for count, row in figures["rows"].items():
            found = [row["commands"][name] for name in commands]
            cells = [cell for it in found for cell in (f"{it['ms']:.1f}", it["files"])]
            rows.append([count, *cells, f"{row['first']:.0f}"])
        header = [cell for name in commands for cell in (name, "opened")]
        yield table(["layers", *header, "first command"], rows)


def slow_section(figures):
    """One layer through a proxy that limits each connection."""
    if figures:
        yield "## A slow connection\n"
        yield (
            f"{describe(figures['image'])}. An nginx proxy limits each connection to "
            f"{figures['rate']} bytes/s.\n"
        )
        one = figures["ways"]["curl, one connection, layer only"]["wall"]
        rows = [
            [how, f"{m['wall']:.2f}", m["requests"], f"{one / m['wall']:.2f}"]
            for how, m in figures["ways"].items()
        ]
        yield table(["client", "wall", "blob requests", "speed relative to one connection"], rows)


def longline_section(figures):
    """Round trips."""
    if figures:
        yield "## High latency\n"
        yield (
            "A relay between client and registry delays every byte in both directions; a new connection "
            "costs one more round trip. *Round trips* is the wall time that the delay added, "
            "divided by the round-trip time.\n"
        )
        rows = []
        for name, tools in figures["images"].items():
            for tool, delays in tools.items():
                base = delays.get("0", {}).get("wall")
                for delay, m in delays.items():
                    trips = "-"
                    if base is not None and int(delay):
                        trips = f"{(m['wall'] - base) / (2 * int(delay) / 1000):.1f}"
                    rows.append(
                        [name, tool, f"{delay} ms", f"{m['wall']:.2f}", trips, m["requests"],
                         m["connections"]]
                    )  # fmt: skip
        yield table(
            ["image", "tool", "delay each way", "wall", "round trips", "requests", "connections"], rows
        )


def budget_section(figures):
    """rpull's cpu against the sum of what cannot be left out."""
    if figures.get("images"):
        yield "## CPU: the whole pull and its parts\n"
        yield (
            "Each part alone, on the same layers: `igzip -dc` to /dev/null; `openssl dgst -sha256` of "
            "the compressed and of the uncompressed bytes; `tar -x` of the uncompressed archive on tmpfs.\n"
        )
        rows = []
        for name, parts in figures["images"].items():
            whole = middle(parts["rpull"])["cpu"]
            cpu = {key: middle(parts[key])["cpu"] for key in ("inflate", "hash gz", "hash tar", "files")}
            total = sum(cpu.values())
            rows.append(
                [name, *(f"{value:.2f}" for value in cpu.values()), f"{total:.2f}", f"{whole:.2f}",
                 f"{whole / total:.2f}"]
            )  # fmt: skip
        yield table(
            ["image", "inflate", "sha256 gz", "sha256 tar", "files", "sum", "rpull", "rpull / sum"], rows
        )
    for name, text in (figures.get("profiles") or {}).items():
        yield f"### Where rpull's time goes: {name}\n"
        yield f"`perf record -e cpu-clock`, by program and by symbol.\n\n```\n{text.strip()}\n```\n"


SECTIONS = {
    "pull": pull_section,
    "check": check_section,
    "budget": budget_section,
    "present": present_section,
    "local": local_section,
    "curve": curve_section, "scale": scale_section,
    "slow": slow_section,
    "longline": longline_section,
}


def write():
    """The whole document; sections measured on machines that differ say on which."""
    parts, machines = [INTRODUCTION], []
    for name, section in SECTIONS.items():
        figures = load(name)
        text = list(section(figures))
        if text:
            if figures["machine"] not in machines:
                machines.append(figures["machine"])
            where = machines.index(figures["machine"]) + 1
            parts += [*text, f"`{figures['command']}`, {figures['date']}, machine {where}.\n"]
    for number, facts in enumerate(machines, 1):
        parts.append(f"## Machine {number}\n")
        parts.append("\n".join(f"- {key}: {value}" for key, value in facts.items()) + "\n")
    DOCUMENT.parent.mkdir(parents=True, exist_ok=True)
    DOCUMENT.write_text("\n".join(parts))
    print(f"wrote {DOCUMENT}")
