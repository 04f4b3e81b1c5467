"""Counting what a detector finds."""

import torch

from scripts.train_tiny.measure_detector import LabelledBoxes, found_by

TRUTH = LabelledBoxes(torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]]), torch.tensor([4, 5]), torch.ones(2))


def guess(boxes, columns):
    return LabelledBoxes(torch.tensor(boxes), torch.tensor(columns), torch.linspace(0.9, 0.1, len(columns)))


def test_class_and_place_must_both_be_right():
    found = found_by(TRUTH, guess([[1.0, 0, 10, 10], [20, 0, 30, 10], [25, 0, 35, 10]], [4, 4, 5]))
    assert found.tolist() == [0, -1, -1]


def test_a_thing_is_found_once_by_the_best_guess():
    found = found_by(TRUTH, guess([[0.0, 0, 10, 8], [0, 0, 10, 10], [21, 0, 30, 10]], [4, 4, 5]))
    assert found.tolist() == [0, -1, 1]


def test_where_nothing_is_nothing_is_found():
    nothing = LabelledBoxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert found_by(nothing, guess([[0.0, 0, 10, 8]], [4])).tolist() == [-1]
    assert found_by(TRUTH, nothing).tolist() == []
