"""The labels of long videos along their time: what is true, what is predicted, and how sure that is."""

from collections import defaultdict
from typing import Any

from vidclf.errors import VidclfError
from vidclf.reporting.results import Results, numbers_of

MAX_FILMS = 20  # that are drawn
MAX_POINTS = 400  # of the line of a film
BUDGET = ("true_s", "predicted_s", "predicted_s_low", "predicted_s_high", "f1", "f1_low", "f1_high")


def timelines_of(results: Results) -> list[dict[str, Any]]:
    """Return bouts (start, end, class) of truth and prediction, and the predicted label's probability over time.

    Raises:
        VidclfError: a table does not fit the run's classes.
    """
    label_of = {name: label for label, name in enumerate(results.names)}
    films: dict[str, dict[str, Any]] = {}
    for row, times in zip(
        results.tables["bouts"], numbers_of(results.tables["bouts"], "start_s", "end_s"), strict=True
    ):
        label = label_of.get(row.get("label", ""))
        if label is None or row.get("source") not in ("truth", "prediction"):
            raise VidclfError(f"{results.folder / 'bouts.csv'}: a bout of {str(row)[:100]}. Evaluate the run again.")
        film = films.setdefault(row.get("path", ""), {"name": row.get("path", ""), "truth": [], "prediction": []})
        film[row["source"]].append((*times, label))
    lines = _lines(results)
    for name, film in films.items():
        film["end_s"] = max(end for source in ("truth", "prediction") for _, end, _ in film[source])
        film["line"] = lines.get(name, [])
    return list(films.values())


def _lines(results: Results) -> dict[str, list[tuple[float, float]]]:
    """Return (time, probability of the predicted label) of each film, thinned."""
    by_film = defaultdict(list)
    for row in results.tables["timeline"]:
        by_film[row.get("path", "")].append(row)
    lines = {}
    for name, rows in by_film.items():
        thinned = rows[:: -(-len(rows) // MAX_POINTS)]
        columns = {f"p_{row.get('predicted')}" for row in thinned}
        values = numbers_of(thinned, "time_s", *columns)
        order = ["time_s", *columns]
        lines[name] = [
            (one[0], one[order.index(f"p_{row.get('predicted')}")]) for row, one in zip(thinned, values, strict=True)
        ]
    return lines  # type: ignore[return-value]


def budget_of(results: Results) -> list[dict[str, Any]]:
    """Return each class's true and predicted seconds and its F1 over instants, with intervals."""
    rows = results.tables["timeline_classes"]
    values = numbers_of(rows, *BUDGET)
    return [
        {"name": row.get("class", ""), **dict(zip(BUDGET, one, strict=True))}
        for row, one in zip(rows, values, strict=True)
    ]
