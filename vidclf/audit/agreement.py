"""Say how far two coders of the same videos agree: the ceiling that a model's score is read against."""

from vidclf.contracts import Dataset, optional
from vidclf.data.corpus import Corpus
from vidclf.evaluation.agreement import cohen_kappa

STEP_S = 0.1


def agreement_sentences(corpus: Corpus) -> list[str]:
    """Return Cohen's kappa over time, of all classes and of each, with its interval over groups; [] for one coder."""
    coded_twice = optional(corpus.dataset, Dataset, "coded_twice")
    coded = coded_twice(STEP_S, corpus.look_up) if coded_twice else []
    if not coded:
        return []
    kappas = cohen_kappa(
        [film.first for film in coded], [film.second for film in coded], [film.group for film in coded]
    )
    texts = []
    for name, (kappa, interval) in kappas.items():
        bounds = f" [{interval.low:.2f}, {interval.high:.2f}]" if interval else ""
        texts.append(f"{name} {kappa:.2f}{bounds}")
    num_groups = len({film.group for film in coded})
    return [
        f"Two coders saw {len(coded)} videos of {num_groups} group(s). Cohen's kappa, every {STEP_S} s, with 95 % "
        f"intervals over groups: {', '.join(texts)}. No model can be shown to do better than that."
    ]
