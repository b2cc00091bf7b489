"""What the comparison of recommenders is judged by, each bar with its figure, and a plot of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

OURS = "mmrec"
RECALL, NDCG, COLD = "recall@20", "ndcg@20", "cold_recall@20"
METRICS = (RECALL, NDCG)
IDS_ALONE, NOT_MEASURED = "ids alone (no content)", "not measured"
Bar = dict[str, Any]
Result = Mapping[str, Any]


def check_bars(results: Mapping[str, Result]) -> list[Bar]:
    """The bars of the data sets that were run, on validation, and where test was looked at on test as well."""
    found: list[Bar] = []
    for name, result in results.items():
        for part in ("validation", "test"):
            if OURS in result["models"] and part in result["comparisons"]:
                found += [{"set": name, "part": part, **bar} for bar in _BARS[name](result, part)]
    return found


def _movies_time(result: Result, part: str) -> Iterator[Bar]:
    yield from _at_least(result, part, {RECALL: 0.22, NDCG: 0.17})
    yield from _beats_best(result, part, 0.01)
    if part == "test":
        return
    beside = result["without order and EASE"]
    yield _bar(
        "without order at least EASE's: the interval reaches 0",
        " ".join(f"{beside[metric]['difference']:+.4f}" for metric in METRICS) if beside else NOT_MEASURED,
        bool(beside) and all(beside[metric]["interval"][1] >= 0 for metric in METRICS),
    )
    yield from _parts_help(result)
    yield from _costs(result)
    full = result["variants"].get("full softmax", {}).get("full minus this")
    gaps = [full[metric]["difference"] for metric in METRICS] if full else []
    yield _bar(
        "sampled within .005 of the full softmax",
        " ".join(f"{gap:+.4f}" for gap in gaps) or NOT_MEASURED,
        bool(gaps) and max(abs(gap) for gap in gaps) <= 0.005,
    )


def _movies_cold(result: Result, part: str) -> Iterator[Bar]:
    own = result["models"][OURS][part]
    rivals = {
        name: result["models"][name][part][COLD]
        for name in result["comparisons"][part]
        if name.startswith("content") or name.endswith("VBPR")
    }
    best = max(rivals, key=lambda name: rivals[name], default="")
    yield _bar(
        "cold items among all: above every content peer",
        f"{own[COLD]:.4f}" + (f", {best} {rivals[best]:.4f}" if best else ", no peer was run"),
        bool(best) and own[COLD] > rivals[best],
    )
    low, high = own[f"{COLD} interval"]
    yield _bar("cold items among all: interval above 0", f"[{low:.4f}, {high:.4f}]", low > 0)
    if part == "validation":
        yield from _costs(result)


def _tiktok(result: Result, part: str) -> Iterator[Bar]:
    yield from _at_least(result, part, {RECALL: 0.132, NDCG: 0.057})
    yield from _parts_help(result)


def _shortvideo(result: Result, part: str) -> Iterator[Bar]:
    yield from _beats_best(result, part, 0.05)


_BARS: dict[str, Callable[[Result, str], Iterator[Bar]]] = {
    "movies-time": _movies_time,
    "movies-cold": _movies_cold,
    "tiktok": _tiktok,
    "shortvideo": _shortvideo,
    "sample": lambda result, part: iter(()),
}


def _bar(name: str, figure: str, met: bool) -> Bar:
    return {"bar": name, "figure": figure, "met": met}


def _at_least(result: Result, part: str, bars: Mapping[str, float]) -> Iterator[Bar]:
    own = result["models"][OURS][part]
    for metric, bar in bars.items():
        yield _bar(f"{metric} >= {bar}, mean of {own['runs']} seeds", f"{own[metric]:.4f}", own[metric] >= bar)


def _beats_best(result: Result, part: str, level: float) -> Iterator[Bar]:
    """By each metric, against the peer that is best by it on this part."""
    beside = result["comparisons"][part]
    for metric in METRICS:
        if not beside:
            yield _bar(f"best tuned peer beaten by {metric}, p < {level}", "no peer was run", False)
            continue
        best = min(beside, key=lambda name: beside[name][metric]["difference"])
        gain, p = beside[best][metric]["difference"], beside[best][metric]["p"]
        name = f"best tuned peer beaten by {metric}, p < {level}"
        yield _bar(name, f"{best} {gain:+.4f}, p = {p:.4f}", gain > 0 and p < level)


def _parts_help(result: Result) -> Iterator[Bar]:
    ids, mean = (result["variants"].get(name, {}) for name in (IDS_ALONE, "mean for attention"))
    gains = [ids["full minus this"][metric] for metric in METRICS] if "full minus this" in ids else []
    yield _bar(
        "content helps: above ids alone, p < 0.05",
        " ".join(f"{gain['difference']:+.4f} (p = {gain['p']:.4f})" for gain in gains) or NOT_MEASURED,
        bool(gains) and all(gain["difference"] > 0 and gain["p"] < 0.05 for gain in gains),
    )
    gains = [mean["full minus this"][metric] for metric in METRICS] if "full minus this" in mean else []
    yield _bar(
        "attention at least equal to mean: the interval reaches 0",
        " ".join(f"{gain['difference']:+.4f}" for gain in gains) or NOT_MEASURED,
        bool(gains) and all(gain["interval"][1] >= 0 for gain in gains),
    )


def _costs(result: Result) -> Iterator[Bar]:
    fits = result["models"][OURS]["fits"]
    seconds, peak = (max(fit.get(name, float("inf")) for fit in fits) for name in ("seconds", "peak_mib"))
    yield _bar("a fit takes at most 180 s", f"{seconds:.1f} s", seconds <= 180)
    yield _bar("a fit takes at most 2 GiB", f"{peak:,.0f} MiB", peak <= 2048)


# --- a plot -----------------------------------------------------------------------------------------------------------


def plot(results: Mapping[str, Result], path: Path) -> None:
    """NDCG@20 (where everything held out is cold, its recall) of every model on validation, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(4.2 * len(results), 5), squeeze=False, layout="constrained")
    for axis, (name, result) in zip(axes[0], results.items(), strict=True):
        metric = COLD if name == "movies-cold" else NDCG
        found = {model: about["validation"] for model, about in result["models"].items() if "validation" in about}
        found |= {f"mmrec, {variant}": about for variant, about in result["variants"].items()}
        found = {model: about for model, about in found.items() if metric in about}
        order = sorted(found, key=lambda model: found[model][metric])
        values = [found[model][metric] for model in order]
        ends = [found[model][f"{metric} interval"] for model in order]
        errors = [
            [value - low for value, (low, _) in zip(values, ends, strict=True)],
            [high - value for value, (_, high) in zip(values, ends, strict=True)],
        ]
        colours = ["C1" if model == OURS else "C4" if model.startswith(OURS) else "C0" for model in order]
        axis.barh(order, values, xerr=errors, color=colours, height=0.7, ecolor="0.3")
        axis.set_title(name, fontsize=10)
        axis.set_xlabel(f"{'recall@20 of cold items' if metric == COLD else metric}, validation", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.savefig(path, dpi=150)
