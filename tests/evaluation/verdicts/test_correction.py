"""Win rates of judges of known errors, corrected by human labels; expected values by hand."""

import numpy as np
import pytest

from evaluation.verdicts.correction import correction, error_rates, in_words, prediction_powered, rogan_gladen
from rlhf_trl_ext.judging.verdicts import Verdict


def verdicts(outcomes):
    return [Verdict(None if outcome is None else float(outcome)) for outcome in outcomes]


def known_errors(wins, losses, right_wins, right_losses):
    """Judge and human outcomes with so many right verdicts among the wins and the losses."""
    human = [1] * wins + [0] * losses
    judge = [1] * right_wins + [0] * (wins - right_wins) + [0] * right_losses + [1] * (losses - right_losses)
    return judge, human


def test_a_judge_of_known_errors_is_corrected_to_the_truth_exactly():
    # 60 wins of 100; the judge sees 48 of them, and 4 of the 40 losses as wins: 0.52 = 0.8 * 0.6 + 0.1 * 0.4
    judge, human = known_errors(60, 40, 48, 36)
    # 400 more pairs on which people were not asked, with the same errors: 208 of them judged wins
    judge += [1] * 208 + [0] * 192
    row = correction(verdicts(judge), verdicts(human + [None] * 400))
    assert row["raw"][0] == pytest.approx(0.52)
    assert (row["sensitivity"], row["specificity"]) == pytest.approx((0.8, 0.9))
    assert row["rogan_gladen"][0] == pytest.approx((0.52 + 0.9 - 1) / 0.7) == pytest.approx(0.6)
    assert row["prediction_powered"][0] == pytest.approx(0.6) and row["human"][0] == pytest.approx(0.6)
    assert (row["labels"], row["pairs"]) == (100, 500)
    for kind in ("rogan_gladen", "prediction_powered", "human"):
        assert row[kind][1] < 0.6 < row[kind][2]
    powered, human_alone = (row[kind][2] - row[kind][1] for kind in ("prediction_powered", "human"))
    assert powered < human_alone
    assert "the judge alone 52.0%" in in_words(row) and "100 of 500 pairs were labelled" in in_words(row)


def test_prediction_powered_moves_by_the_judges_difference_between_all_and_labelled():
    # judge equals people on the 20 labelled pairs (10 wins): covariance 5 / 19, the judge's variance over all 60 pairs
    # 40 * 20 / 60 / 59, so the weight is above 1 and held at it; on all 60 it sees 40 wins
    human = np.array([1.0] * 10 + [0.0] * 10 + [np.nan] * 40)
    judge = np.array([1.0] * 10 + [0.0] * 10 + [1.0] * 30 + [0.0] * 10)
    assert prediction_powered(judge, human, np.arange(60))[0] == pytest.approx(0.5 + (40 / 60 - 0.5))
    assert rogan_gladen(judge, human, np.arange(60))[0] == pytest.approx(40 / 60)


def test_ties_count_one_half_on_both_sides():
    # sensitivity (1 * 1 + 0.5 * 0.5) / 1.5, specificity (0.5 * 0.5 + 1 * 0) / 1.5
    assert error_rates(np.array([1, 0.5, 1]), np.array([1, 0.5, 0])) == pytest.approx((1.25 / 1.5, 0.25 / 1.5))


def test_a_judge_that_guesses_is_not_corrected_by_its_errors_and_people_decide():
    judge, human = known_errors(40, 40, 20, 20)
    row = correction(verdicts(judge * 2), verdicts(human + [None] * 80))
    assert row["rogan_gladen"] is None and row["prediction_powered"][0] == pytest.approx(0.5)
    assert "Rogan-Gladen" not in in_words(row)


def test_unreadable_verdicts_take_no_part_and_few_labels_correct_nothing():
    judge, human = known_errors(6, 6, 5, 5)
    assert correction(verdicts([None, *judge]), verdicts([1, *human]))["labels"] == 12
    assert correction(verdicts(judge), verdicts(human[:9] + [None] * 3)) is None


def test_pairs_of_one_prompt_are_one_observation():
    judge, human = known_errors(30, 30, 24, 24)
    alone = correction(verdicts(judge), verdicts(human), np.arange(60))
    doubled = correction(verdicts(judge * 2), verdicts(human * 2), np.tile(np.arange(60), 2))
    for kind in ("rogan_gladen", "prediction_powered"):
        width, other = (row[kind][2] - row[kind][1] for row in (alone, doubled))
        assert other == pytest.approx(width, rel=0.06)  # not narrower by the root of two
