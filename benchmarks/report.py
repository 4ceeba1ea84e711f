"""From the results of all comparisons to tables: on the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Table", "as_markdown", "conditions", "median", "tables"]

Result = Mapping[str, Any]
"""What ``comparison.run`` returns."""

_OURS = ("spikestill-rate", "spikestill-bptt")


class Table(NamedTuple):
    """A table: the first column is text, the others are figures."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(results: Sequence[Result]) -> list[Table]:
    """Every table that the results can fill."""
    made: list[Table] = []
    for network, precision in _groups(results, "training"):
        group = _of(results, "training", network, precision)
        made += [_times(group, f"{network}, {precision}"), _ratios(group, f"{network}, {precision}")]
    for network, precision in _groups(results, "inference"):
        made.append(_inference(_of(results, "inference", network, precision), f"{network}, {precision}"))
    for network, precision in _groups(results, "memory"):
        made.append(_memory(_of(results, "memory", network, precision), f"{network}, {precision}"))
    checks = [result for result in results if result["job"]["task"] != "memory"]
    return [*made, _checks(checks)] if checks else made


def conditions(results: Sequence[Result]) -> list[str]:
    """The hardware, versions and settings behind the results, a line each."""
    lines = _distinct(_place(result) for result in results)
    lines += _distinct(_spikes(result) for result in results if "spikes" in result)
    environment = results[0]["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    loads = [result["environment"]["load"] for result in results]
    lines += [
        f"Python {environment['python']}, {packages}; commit {environment['commit']}",
        f"OpenMP: {', '.join(f'{name}={value}' for name, value in environment['openmp'].items() if value)}",
        f"SpikingJelly's LIF kernel: {environment['spikingjelly_kernel']['implementation']}",
        f"load average when the comparisons began: {min(loads):.1f} to {max(loads):.1f}",
    ]
    return lines


def _spikes(result: Result) -> str:
    layers, setting = result["spikes"], result["job"]["setting"]
    where, mean = f"{setting['network']}, T = {setting['timesteps']}", sum(layers) / len(layers)
    return f"spikes, {where}: {min(layers):.0%} to {max(layers):.0%} of a layer's neurons a step, on average {mean:.0%}"


def median(result: Result, contestant: str) -> float | None:
    """A contestant's median time in seconds; None where it has none."""
    times = result["contestants"].get(contestant, {}).get("time")
    return times["median"] if times else None


def as_markdown(results: Sequence[Result], made: Sequence[Table], figures: Sequence[str]) -> str:
    """The page: conditions, tables and figures."""
    lines = ["# Benchmarks", "", *(f"- {line}" for line in conditions(results))]
    for table in made:
        lines += ["", f"## {table.title}", "", _row(table.header)]
        lines.append(_row(["---"] + ["---:"] * (len(table.header) - 1)))
        lines += [_row(row) for row in table.rows]
    lines += [line for figure in figures for line in ("", f"![{figure}]({figure})")]
    return "\n".join(lines) + "\n"


def _times(results: Sequence[Result], where: str) -> Table:
    rows = [[name, *(_time(result, name) for result in results)] for name in _contestants(results)]
    return Table(f"Training step, {where}: ms, median [quartiles]", ["", *_columns(results)], rows)


def _time(result: Result, name: str) -> str:
    times = result["contestants"].get(name, {}).get("time")
    if not times:
        return "does not run" if "error" in result["contestants"].get(name, {}) else ""
    return f"{1e3 * times['median']:.4g} [{1e3 * times['lower']:.4g}, {1e3 * times['upper']:.4g}]"


def _ratios(results: Sequence[Result], where: str) -> Table:
    rows = []
    for ours in _OURS:
        for name in _contestants(results):
            if name in _OURS or name.startswith("ann"):
                continue
            ratios = [_ratio(median(result, name), median(result, ours)) for result in results]
            rows.append([f"{name} / {ours}", *ratios])
    for ours in _OURS:
        floors = [_floor(result) for result in results]
        own = [_ratio(median(result, ours), floor) for result, floor in zip(results, floors, strict=True)]
        rows.append([f"{ours} / floor", *own])
    rows = [row for row in rows if any(row[1:])]
    return Table(
        f"Training step, {where}: how many times as long (floor: (T + 2) / 3 of ann-compiled)",
        ["", *_columns(results)],
        rows,
    )


def _floor(result: Result) -> float | None:
    """What T forward passes and one backward pass of the ANN take."""
    ann = median(result, "ann-compiled")
    return None if ann is None else (result["job"]["setting"]["timesteps"] + 2) / 3 * ann


def _inference(results: Sequence[Result], where: str) -> Table:
    rows = []
    for name in _contestants(results):
        rates = [_images_a_second(result, name) for result in results]
        rows.append([name, *("" if rate is None else f"{rate:.4g}" for rate in rates)])
    return Table(f"Inference, {where}: images a second", ["", *_columns(results)], rows)


def _images_a_second(result: Result, name: str) -> float | None:
    seconds = median(result, name)
    return None if seconds is None else result["job"]["setting"]["batch"] / seconds


def _memory(results: Sequence[Result], where: str) -> Table:
    """One comparison holds one contestant here, so several share a column."""
    steps = _distinct(result["job"]["setting"]["timesteps"] for result in results)
    rows = []
    for name in _contestants(results):
        taken = {
            result["job"]["setting"]["timesteps"]: result["contestants"][name].get("memory")
            for result in results
            if name in result["contestants"]
        }
        rows.append([name, *("" if taken.get(step) is None else f"{taken[step] / 2**20:.4g}" for step in steps)])
    return Table(f"Peak memory of a training step, {where}: MiB", ["", *(f"T = {step}" for step in steps)], rows)


def _checks(results: Sequence[Result]) -> Table:
    """Over all comparisons: the worst that was seen."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        for name, entry in result["contestants"].items():
            if entry.get("check"):
                found.setdefault(f"{result['job']['task']}: {name}", []).append(entry["check"])
    rows = []
    for name, checks in found.items():
        differing = sum(sum(check["differing"]) for check in checks)
        compared = sum(sum(check["compared"]) for check in checks)
        similar = [check["gradient"] for check in checks if check["gradient"] is not None]
        rows.append(
            [
                name,
                checks[0]["order"] or "ReLU",
                f"{differing} of {compared}",
                f"{max(check['logits'] for check in checks):.1e}",
                f"{min(similar):.6f}" if similar else "",
                "yes" if all(check["same"] for check in checks) else "NO",
            ]
        )
    header = ["", "neuron", "spikes that differ", "logits", "gradients", "same"]
    return Table(
        "The same network? Spikes, logits (relative difference), gradients (cosine, to the twin's)", header, rows
    )


def _of(results: Sequence[Result], task: str, network: str, precision: str) -> list[Result]:
    """The results of one table, by T."""
    wanted = (task, network, precision)
    return sorted(
        (result for result in results if _key(result) == wanted),
        key=lambda result: result["job"]["setting"]["timesteps"],
    )


def _groups(results: Sequence[Result], task: str) -> list[tuple[str, str]]:
    return _distinct(_key(result)[1:] for result in results if result["job"]["task"] == task)


def _key(result: Result) -> tuple[str, str, str]:
    setting = result["job"]["setting"]
    return result["job"]["task"], setting["network"], setting["precision"]


def _contestants(results: Sequence[Result]) -> list[str]:
    return _distinct(name for result in results for name in result["contestants"])


def _columns(results: Sequence[Result]) -> list[str]:
    return [f"T = {result['job']['setting']['timesteps']}" for result in results]


def _place(result: Result) -> str:
    setting, environment = result["job"]["setting"], result["environment"]
    device = environment["processor"]
    if setting["device"] == "cuda":
        device = environment["accelerators"][0]
    return (
        f"{device}, {environment['cores']} cores, {environment['threads']} threads; batch {setting['batch']}, "
        f"width {setting['width']:g}, images {setting['image_size']} x {setting['image_size']}"
    )


def _ratio(one: float | None, other: float | None) -> str:
    return "" if one is None or other is None else f"{one / other:.2f}"


def _distinct(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
