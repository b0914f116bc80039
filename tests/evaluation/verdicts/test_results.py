"""Results of a pipeline in a folder that holds another's."""

import json

import pytest

from evaluation.verdicts.results import check_free
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
