"""The statistics of an assessment as literal loops over floats, as one would do them on paper; no torch."""

import itertools
import math
from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def softmax(scores: Sequence[float]) -> list[float]:
    largest = max(scores)
    weights = [math.exp(score - largest) for score in scores]
    return [weight / math.fsum(weights) for weight in weights]


def mean_of_logits(members: Sequence[Matrix]) -> list[list[float]]:
    """Probabilities [N][classes] of the averaged logits of members [k][N][classes]."""
    found = []
    for image in zip(*members, strict=True):
        found.append(softmax([math.fsum(scores) / len(scores) for scores in zip(*image, strict=True)]))
    return found


def mean_of_probabilities(members: Sequence[Matrix]) -> list[list[float]]:
    found = []
    for image in zip(*members, strict=True):
        each = [softmax(scores) for scores in image]
        found.append([math.fsum(values) / len(values) for values in zip(*each, strict=True)])
    return found


def predicted(probabilities: Matrix) -> list[int]:
    return [row.index(max(row)) for row in (list(row) for row in probabilities)]


def accuracy(probabilities: Matrix, labels: Sequence[int]) -> float:
    right = [guess == label for guess, label in zip(predicted(probabilities), labels, strict=True)]
    return sum(right) / len(right)


def nll(probabilities: Matrix, labels: Sequence[int]) -> float:
    return math.fsum(-math.log(row[label]) for row, label in zip(probabilities, labels, strict=True)) / len(labels)


def brier(probabilities: Matrix, labels: Sequence[int]) -> float:
    total = 0.0
    for row, label in zip(probabilities, labels, strict=True):
        for index, probability in enumerate(row):
            total += (probability - (1.0 if index == label else 0.0)) ** 2
    return total / len(labels)


def calibration_error(confidences: Sequence[float], correct: Sequence[float], bins: int) -> float:
    """Bins (b / bins, (b + 1) / bins]; 0 belongs to the first."""
    total = 0.0
    for b in range(bins):
        inside = [
            (confidence, right)
            for confidence, right in zip(confidences, correct, strict=True)
            if b < confidence * bins <= b + 1 or (b == 0 and confidence == 0)
        ]
        if inside:
            mean = math.fsum(confidence for confidence, _ in inside) / len(inside)
            share = math.fsum(right for _, right in inside) / len(inside)
            total += len(inside) / len(confidences) * abs(mean - share)
    return total


def equal_mass_error(confidences: Sequence[float], correct: Sequence[float], bins: int) -> float:
    """Cut after every n / bins images in rising order; equal confidences go together, to the later bin."""
    ordered = sorted(confidences)
    edges = [ordered[b * len(ordered) // bins] for b in range(1, bins)]
    groups: dict[int, list[tuple[float, float]]] = {}
    for confidence, right in zip(confidences, correct, strict=True):
        groups.setdefault(sum(edge <= confidence for edge in edges), []).append((confidence, right))
    total = 0.0
    for inside in groups.values():
        gap = math.fsum(c for c, _ in inside) / len(inside) - math.fsum(r for _, r in inside) / len(inside)
        total += len(inside) / len(confidences) * abs(gap)
    return total


def churn(draws: Sequence[Sequence[int]]) -> float:
    """Share of images on which two draws disagree, over all pairs of draws."""
    shares = []
    for first, second in itertools.combinations(draws, 2):
        shares.append(sum(a != b for a, b in zip(first, second, strict=True)) / len(first))
    return math.fsum(shares) / len(shares)


def gained_and_lost(now: Sequence[Sequence[float]], before: Sequence[Sequence[float]]) -> tuple[float, float]:
    gained, lost = [], []
    for mine, other in itertools.product(now, before):
        gained.append(sum(a == 1 and b == 0 for a, b in zip(mine, other, strict=True)) / len(mine))
        lost.append(sum(a == 0 and b == 1 for a, b in zip(mine, other, strict=True)) / len(mine))
    return math.fsum(gained) / len(gained), math.fsum(lost) / len(lost)


def confusion(labels: Sequence[int], guesses: Sequence[int], classes: int) -> list[list[int]]:
    matrix = [[0] * classes for _ in range(classes)]
    for label, guess in zip(labels, guesses, strict=True):
        matrix[label][guess] += 1
    return matrix
