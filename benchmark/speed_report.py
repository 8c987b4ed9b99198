"""What the measured sides of :mod:`speed` say of each other: ratios, agreement, what bounds them; as words and as bars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import Structure, structure_mask
from flrplan.metrics.overlap import dice

OURS = ("cold", "warm", "single")
"""Our sides, each followed by its engine."""
GOALS = {"default-24": {"cold fast": 6.0, "cold exact": 1.9, "single fast": 10.0}, "demo": {"cold fast": 6.0}}
"""By size and side of ours: the wall of the chain over its."""
LEAST_AGREEMENT = {"cold fast": 0.995, "cold exact": 0.999, "single fast": 0.995}
"""Dice between the chain and ours for each structure."""
LEAST_MEMORY_RATIO = 2.0
STRUCTURES = (Structure.LIVER, Structure.CRLM, Structure.FLR)


def is_ours(side: str) -> bool:
    """Whether a side is ours: ``cold fast``, say."""
    return side.split()[0] in OURS


def compare(
    sides: Mapping[str, Mapping[str, Any]], labels: Mapping[str, NDArray[np.uint8]], truth: NDArray[np.uint8] | None
) -> dict[str, Any]:
    """Ratios of each peer to ours, and Dice per structure between peers and ours and against the truth."""
    ratios = {
        f"{peer} / {own}": {
            key: sides[peer][key] / sides[own][key]
            for key in ("wall_s", "cpu_s", "peak_bytes", "device_peak_bytes")
            if sides[peer].get(key) and sides[own].get(key)
        }
        for peer in sides
        for own in sides
        if not is_ours(peer) and is_ours(own)
    }

    def per_structure(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> dict[str, float]:
        return {s.value: dice(structure_mask(a, s), structure_mask(b, s)) for s in STRUCTURES}

    agreement = {
        f"{peer}, {own}": per_structure(labels[peer], labels[own])
        for peer in labels
        for own in labels
        if not is_ours(peer) and is_ours(own)
    }
    against = {} if truth is None else {side: per_structure(truth, label) for side, label in labels.items()}
    return {"ratios": ratios, "agreement_dice": agreement, "truth_dice": against}


def reached(report: dict[str, Any]) -> None:
    """Adds to each side the GFLOP/s of its network, by the GFLOP that nnU-Net's grid of tiles needs; to the report what bounds our wall."""
    work, peak = report["needed"], report["gemm_peak"]["gflops"]

    def gflop(name: str, key: str) -> float:
        first_alone = name.startswith("single")
        return sum(float(s[key]) / (s["folds"] if first_alone else 1) for s in work["stages"].values())

    for name, side in report["sides"].items():
        network = side.get("seconds", {}).get("network")
        if network:
            side["network_gflops"] = gflop(name, "gflop") / network
            side["network_share_of_peak"] = side["network_gflops"] / peak
    report["bound_s"] = {"all tiles": work["gflop"] / peak, "tiles with liver": work["gflop_with_liver"] / peak}
    report["bound_of_wall"] = {
        name: gflop(name, "gflop_with_liver") / peak / side["wall_s"]
        for name, side in report["sides"].items()
        if is_ours(name) and "wall_s" in side
    }


def goals(report: Mapping[str, Any]) -> list[str]:
    """What this run says of the goals, a line each; none without the chain."""
    lines = []
    for side, least in LEAST_AGREEMENT.items():
        pair = f"chain / {side}"
        ratios = report.get("ratios", {}).get(pair)
        if ratios is None:
            continue
        goal = GOALS.get(report["size"], {}).get(side)
        lines.append(f"goal: wall, {pair}: {ratios['wall_s']:.2f}" + (f", at least {goal:g}" if goal else ""))
        lines.append(f"goal: peak memory, {pair}: {ratios['peak_bytes']:.2f}, at least {LEAST_MEMORY_RATIO:g}")
        dices = report["agreement_dice"].get(f"chain, {side}")
        if dices:
            lines.append(f"goal: agreement, chain and {side}: {min(dices.values()):.4f}, at least {least:g}")
    return lines


def table(report: Mapping[str, Any]) -> str:
    """The report in words, for a terminal."""
    host = report["machine"]
    lines = [
        f"{report['size']}: {report['image']} on {host['device']}, {host['cpu']}, {host['cores']} cores, load {host['load_average']:.1f}",
        f"{'side':12} {'wall s':>8} {'CPU s':>8} {'peak GB':>8} {'device GB':>9} {'network s':>9} {'GFLOP/s':>9}",
    ]
    for name, side in report["sides"].items():
        if "failed" in side:
            lines.append(f"{name:12} failed: {side['failed']}")
            continue
        on_device = f"{side['device_peak_bytes'] / 1e9:.2f}" if side["device_peak_bytes"] else "-"
        lines.append(
            f"{name:12} {side['wall_s']:8.1f} {side['cpu_s']:8.1f} {side['peak_bytes'] / 1e9:8.2f} {on_device:>9} "
            f"{side['seconds'].get('network', 0):9.1f} {side.get('network_gflops', float('nan')):9.0f}"
        )
        lines.append(" " * 13 + ", ".join(f"{phase} {value:.1f}" for phase, value in side["seconds"].items() if value >= 0.05))
    for pair, ratios in report.get("ratios", {}).items():
        lines.append(f"{pair}: " + ", ".join(f"{key.rsplit('_', 1)[0]} {value:.2f}" for key, value in ratios.items()))
    for title, key in (("Dice of", "agreement_dice"), ("Dice against the truth,", "truth_dice")):
        for pair, values in report.get(key, {}).items():
            lines.append(f"{title} {pair}: " + ", ".join(f"{s} {value:.4f}" for s, value in values.items()))
    lines += goals(report)
    if "needed" in report:
        work, peak = report["needed"], report["gemm_peak"]
        tiles = ", ".join(
            f"{s} {w['folds']} x {w['tiles']} ({w['tiles_with_liver']} with liver)" for s, w in work["stages"].items()
        )
        lines.append(
            f"tiles: {tiles}; {work['gflop']:.0f} GFLOP, with liver {work['gflop_with_liver']:.0f}; GEMM peak {peak['gflops']:.0f} GFLOP/s "
            f"({peak['precision']}): {report['bound_s']['all tiles']:.2f} s, {report['bound_s']['tiles with liver']:.2f} s"
        )
        lines += [
            f"GFLOP with liver / GEMM peak / wall of {side}: {value:.2f}" for side, value in report["bound_of_wall"].items()
        ]
    lines += [f"note: {note}" for note in report["notes"]]
    return "\n".join(lines) + "\n"


def write_chart(report: Mapping[str, Any], path: Path) -> None:
    """Bars per side: wall by phase, CPU seconds, peak memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sides = {name: side for name, side in report["sides"].items() if "wall_s" in side}
    if not sides:
        return
    names = list(sides)[::-1]
    figure, (wall, cpu, memory) = plt.subplots(
        1, 3, figsize=(13, 1.6 + 0.5 * len(names)), sharey=True, width_ratios=(3, 1.2, 1.2)
    )
    phases = list(dict.fromkeys(phase for side in sides.values() for phase in side["seconds"]))
    colour = plt.get_cmap("tab10")
    left = np.zeros(len(names))
    for number, phase in enumerate(phases):
        width = np.array([sides[n]["seconds"].get(phase, 0.0) for n in names])
        wall.barh(names, width, left=left, color=colour(number), label=phase)
        left += width
    total = np.array([sides[n]["wall_s"] for n in names])
    wall.barh(names, np.maximum(total - left, 0), left=left, color="#ebebeb", label="other, waiting")
    wall.set_xlabel("wall, s")
    cpu.barh(names, [sides[n]["cpu_s"] for n in names], color="tab:blue")
    cpu.set_xlabel("CPU, s")
    memory.barh(names, [sides[n]["peak_bytes"] / 1e9 for n in names], color="tab:blue")
    memory.set_xlabel("peak memory of the processes, GB")
    for axes, values in (
        (wall, total),
        (cpu, [sides[n]["cpu_s"] for n in names]),
        (memory, [sides[n]["peak_bytes"] / 1e9 for n in names]),
    ):
        for row, value in enumerate(values):
            axes.text(value, row, f" {value:.1f}", va="center", fontsize=9)
        axes.set_xlim(0, 1.15 * max(values))
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{report['size']}: {report['image']}, {report['machine']['device']}", fontsize=11)
    figure.legend(loc="lower center", ncols=len(phases) + 1, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
