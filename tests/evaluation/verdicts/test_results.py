"""Results of a pipeline in a folder that holds another's."""

import json

import pytest

from evaluation.verdicts.results import check_free, table
from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages.identity import digest


def test_results_of_other_data_and_of_other_policies_are_not_overwritten(composed, tmp_path):
    config = composed("pipeline", "policies=[dpo]")
    check_free(config, tmp_path)
    earlier = {"data": digest(config.dataset), "policies": {"dpo": {}}}
    (tmp_path / "results.json").write_text(json.dumps(earlier))
    check_free(config, tmp_path)  # its own
    check_free(composed("pipeline", "policies=[dpo,grpo]"), tmp_path)  # adds
    with pytest.raises(ConfigError, match="of other data"):
        check_free(composed("pipeline", "policies=[dpo]", "seed=1"), tmp_path)
    with pytest.raises(ConfigError, match=r"results of dpo as well: name them in policies"):
        check_free(composed("pipeline", "policies=[grpo]"), tmp_path)
    check_free(composed("pipeline", "policies=[grpo]", "overwrite=true"), tmp_path)


def test_the_terminal_shows_the_length_controlled_rate_beside_the_other():
    row = {"win_rate": 0.7, "win_rate_ci": (0.6, 0.8), "length_controlled_win_rate": 0.55, "length_controlled_ci": None}
    policies = {"dpo": row, "grpo": {**row, "length_controlled_ci": [0.45, 0.65]}}
    shown = table({"baseline": "sft", "judge": "gold", "policies": policies})
    cells = {number: list(column.cells) for number, column in enumerate(shown.columns)}
    assert [column.header for column in shown.columns][3:5] == ["LC win rate", "95 % interval"]
    assert cells[2] == ["", "0.600 - 0.800 *", "0.600 - 0.800 *"]
    assert cells[3] == ["", "0.550", "0.550"] and cells[4] == ["", "", "0.450 - 0.650"]
