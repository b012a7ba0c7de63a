"""What a temperature fitted on val is worth on other videos: `python -m experiments.temperature.simulate`."""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from vidclf.evaluation.calibration import fit_temperature

NUM_STUDIES, NUM_CLASSES, CLIPS, TEST_GROUPS, CORRELATION = 20, 4, 7, 40, 0.6
DISTANCES = (0.0, 1.5, 3.0, 4.5)  # between classes: chance, then accuracies from 0.6 to 0.99
GROUPS = (3, 8, 20, 60)
OVERCONFIDENCE = (0.5, 1.0, 2.0, 5.0)  # factor on the true logits
TEST_DISTANCES = (1.0, 0.8)  # share of val's: 0.8 is a harder test part, as after a choice on val


def draw(groups: int, distance: float, factor: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and labels of groups of clips that share a part of their noise."""
    labels = torch.randint(NUM_CLASSES, (groups, 1), generator=random).expand(-1, CLIPS)
    shared = torch.randn(groups, 1, NUM_CLASSES, generator=random) * CORRELATION**0.5
    noise = shared + torch.randn(groups, CLIPS, NUM_CLASSES, generator=random) * (1 - CORRELATION) ** 0.5
    logits = (noise + distance * F.one_hot(labels, NUM_CLASSES)) * (distance or 3.0) * factor
    return logits.flatten(0, 1).double().log_softmax(1), labels.flatten()


def loss(part: tuple[Tensor, Tensor], temperature: float = 1.0) -> float:
    return F.cross_entropy(part[0] / temperature, part[1]).item()


def main() -> None:
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    print("test distance | settings | raw loss | change | largest | settings that are worse by 2 standard errors")
    for share in TEST_DISTANCES:
        raw, changes = [], []
        for distance, groups, factor in product(DISTANCES, GROUPS, OVERCONFIDENCE):
            for _ in range(NUM_STUDIES):
                val = draw(groups, distance, factor, random)
                test = draw(TEST_GROUPS, distance * share, factor / share, random)
                raw.append(loss(test))
                changes.append(loss(test, fit_temperature(*val, num_groups=groups)) - raw[-1])
        table = torch.tensor(changes).view(-1, NUM_STUDIES)
        mean, error = table.mean(1), table.std(1) / NUM_STUDIES**0.5
        worse = int((mean > 2 * error).sum())
        overall = f"{sum(raw) / len(raw):.3f} | {mean.mean():+.3f} | {mean.max():+.3f}"
        print(f"{share} of val's | {len(mean)} | {overall} | {worse}")


if __name__ == "__main__":
    main()
