"""The Markdown report of an evaluation: what was found in words, tables, and samples side by side."""

from rlhf_trl_ext.judging.injection import in_words, not_measured
from rlhf_trl_ext.judging.prompt import as_text
from rlhf_trl_ext.markdown import rows

LONGEST = 600  # characters of a text that are shown


def markdown(results: dict, samples: dict[str, list[dict]], num_samples: int = 3) -> str:
    """The report of `evaluation.verdicts.evaluate.evaluate`. shown: how many pairs of samples a policy."""
    parts = [f"# Policies against {results['baseline']}, judged by {results['judge']}", ""]
    parts += [f"- Is this a fair judge? {results['fair_judge']}."] if results.get("fair_judge") else []
    parts += [f"- {row['in_words']}" for row in results["policies"].values()]
    parts += [f"- {sentence}" for sentence in results["notices"]]
    parts += ["", "## Win rates", "", *_win_rates(results), "", "## The judge", "", *_biases(results)]
    parts += _injections(results)
    parts += ["", "## Metrics", "", *_metrics(results)]
    parts += _scores(results)
    if results.get("aa_control"):
        covers = "covers" if results["aa_control"]["covers_half"] else "does NOT cover"
        parts += [
            "",
            f"A/A: the baseline against other samples of itself {covers} one half: {_rate(results['aa_control'])}.",
        ]
    if results.get("agreement"):
        parts += ["", "## Agreement", "", *_agreement(results["agreement"])]
    parts += _corrected(results)
    if results.get("ranking"):
        parts += ["", "## Ranking (Bradley-Terry)", "", *_ranking(results["ranking"])]
    if results.get("failures"):
        parts += ["", "## Failure analysis", "", *failures(results["failures"])]
        if wolf := results.get("false_positives"):
            parts += [
                f"False positives: of {wolf['comparisons']} comparisons of one half of the baseline's samples with the "
                f"other, {wolf['flagged']} raised a flag ({wolf['rate']:.0%})."
            ]
    parts += ["", "## Samples", "", *_samples(results, samples, num_samples)]
    return "\n".join(parts) + "\n"


def _number(value, form: str = ".3f") -> str:
    return "" if value is None else format(value, form)


def _calibrated(quality: dict) -> str:
    mean, low, high = quality["ece_calibrated"]
    return f"a calibrated reward has {mean:.3f}, {low:.3f} to {high:.3f}, on as many pairs"


def _interval(interval) -> str:
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _rate(row: dict) -> str:
    return f"{row['win_rate']:.3f} ({_interval(row['win_rate_ci'])})"


def _controlled(row: dict) -> str:
    if "length_controlled_win_rate" not in row:
        return ""
    rate = row["length_controlled_win_rate"]
    return (
        "cannot be controlled" if rate is None else f"{rate:.3f} ({_interval(row['length_controlled_ci']) or 'none'})"
    )


def _win_rates(results: dict) -> list[str]:
    header = ["policy", "win rate", "95 %", "95 % (Wilson)", "length-controlled", "wins / ties / losses"]
    header += ["unparsable", "p (sign test)", "reward", "gold", "KL (nats)"]
    body = []
    for name, row in results["policies"].items():
        body.append(
            [
                name,
                _number(row["win_rate"]),
                _interval(row["win_rate_ci"]),
                _interval(row["wilson_ci"]),
                _controlled(row),
                f"{row['wins']} / {row['ties']} / {row['losses']}",
                row["unparsable"],
                _number(row["sign_test_p"], ".2g"),
                _number(row.get("reward_mean"), ".2f"),
                _number(row.get("gold_reward_mean")),
                _number(row.get("kl_mean"), ".2f"),
            ]
        )
    for name, row in results["policies"].items():
        if row.get("alpaca_eval"):
            controlled = row["alpaca_eval"]["length_controlled_win_rate"]
            body.append([f"{name}, AlpacaEval-2's GLM", "", "", "", _number(controlled), *[""] * 6])
    intervals = "Intervals are over prompts, not over training seeds; ties count one half."
    return [*rows(header, body), "", intervals]


def _corrected(results: dict) -> list[str]:
    """The judge's win rates beside those that human labels make of them."""
    known = {name: row["corrected"] for name, row in results["policies"].items() if row.get("corrected")}
    if not known:
        return []
    kinds = ("raw", "rogan_gladen", "prediction_powered", "human")
    header = ["policy", "the judge alone", "Rogan-Gladen", "prediction-powered", "people alone", "labels"]
    header += ["sensitivity"]
    body = [
        [
            name,
            *(f"{own[kind][0]:.3f} ({_interval(own[kind][1:])})" if own[kind] else "not to be had" for kind in kinds),
            f"{own['labels']} of {own['pairs']}",
            f"{own['sensitivity']:.2f}, specificity {own['specificity']:.2f}",
        ]
        for name, own in known.items()
    ]
    words = "The labelled pairs have to be a random choice of all; ties count one half."
    return ["", "## Win rates corrected by human labels", "", *rows(header, body), "", words]


def _biases(results: dict) -> list[str]:
    header = ["policy", "wins shown first", "wins shown second", "position bias", "first choice", "order flips"]
    header += ["longer wins", "length correlation", "longer by"]
    body = []
    for name, row in results["policies"].items():
        position, length = row.get("position", {}), row.get("length", {})
        body.append(
            [
                name,
                _number(position.get("win_rate_shown_first")),
                _number(position.get("win_rate_shown_second")),
                _number(position.get("position_bias"), "+.3f"),
                _number(position.get("first_choice_rate")),
                _number(row.get("order_flip_rate")),
                _number(length.get("longer_wins")),
                _number(length.get("length_correlation"), "+.3f"),
                _number(length.get("length_difference_mean"), "+.1f"),
            ]
        )
    return rows(header, body)


def _injections(results: dict) -> list[str]:
    """How easily a judge that reads texts is talked into a verdict, or how to find out."""
    if not results.get("judge_reads_texts"):
        return []
    measured = results.get("injection_flip_rate")
    if measured is None:
        return ["", not_measured(results["judge"])]
    return ["", *(in_words(results["judge"], name, rate) for name, rate in measured.items())]


def _metrics(results: dict) -> list[str]:
    """Metrics of the baseline and every policy, one a line; how well the reward predicts the judge below."""
    described = {results["baseline"]: results["baseline_result"], **results["policies"]}
    metrics = {name: row["metrics"] for name, row in described.items() if row.get("metrics")}
    keys = list(dict.fromkeys(key for row in metrics.values() for key in row))
    body = []
    for key in keys:
        values = [row.get(key) for row in metrics.values()]
        body.append([key] + [_interval(v) if isinstance(v, list) else _number(v) for v in values])
    parts = rows(["metric", *metrics], body)
    for name, row in results["policies"].items():
        if quality := row.get("reward_quality"):
            correlation = _number(quality["length_correlation"], "+.3f")
            parts += [
                "",
                f"Reward against the judge on {name}: accuracy {quality['accuracy']:.3f} "
                f"({_interval(quality['accuracy_ci'])}) over {quality['pairs']} decided pairs, calibration error (ECE) "
                f"{quality['ece']:.3f} ({_calibrated(quality)}), correlation with length {correlation}.",
            ]
    return parts


def _scores(results: dict) -> list[str]:
    """Mean scores of judges that score every answer alone, in all and by category."""
    parts = []
    for name, row in results["policies"].items():
        if row.get("score_means"):
            body = [["all", *map(_number, row["score_means"])]]
            body += [[category, *map(_number, means)] for category, means in row.get("category_scores", {}).items()]
            parts += ["", "## Scores", "", *rows(["category", name, results["baseline"]], body)]
    return parts


def _agreement(judges: list[dict]) -> list[str]:
    header = ["judges", "pairs", "agreement", "95 % (Wilson)", "kappa"]
    body = [
        [
            " and ".join(row["judges"]),
            row["pairs"],
            _number(row["agreement"]),
            _interval(row["agreement_ci"]),
            _number(row["kappa"]),
        ]
        for row in judges
    ]
    return rows(header, body)


def _ranking(ranked: list[dict]) -> list[str]:
    distinct = {True: "yes", False: "no", None: ""}
    body = [
        [
            place,
            row["policy"],
            _number(row["strength"], "+.3f"),
            _interval(row["interval"]),
            distinct[row["distinct_from_next"]],
        ]
        for place, row in enumerate(ranked, start=1)
    ]
    return rows(["", "policy", "strength (logits)", "95 %", "distinct from the next"], body)


def failures(by_policy: dict[str, list[dict]]) -> list[str]:
    """Tables of failure diagnostics by policy: value, baseline, difference, interval, threshold, flag."""
    parts = []
    for name, diagnostics in by_policy.items():
        flagged = [row["name"] for row in diagnostics if row["flagged"]]
        parts += [f"**{name}**: " + (f"flagged: {', '.join(flagged)}." if flagged else "nothing flagged."), ""]
        body = [
            [
                row["name"],
                _number(row["value"]),
                _number(row["baseline"]),
                _number(row["difference"], "+.3f"),
                _interval(row["interval"]),
                row["threshold"],
                "FLAG" if row["flagged"] else "",
            ]
            for row in diagnostics
        ]
        parts += rows(["diagnostic", "value", "baseline", "difference", "95 %", "flagged when", ""], body)
        parts += ["", *(line for row in diagnostics if row["flagged"] for line in _worst(row)), ""]
    return parts


def _worst(row: dict) -> list[str]:
    return [f"Worst for {row['name']}:", ""] + [f"> {_short(text)}" for text in row.get("worst", [])] + [""]


def _samples(results: dict, samples: dict[str, list[dict]], num_samples: int) -> list[str]:
    parts = []
    for name, row in results["policies"].items():
        for i in row.get("examples", range(num_samples))[:num_samples]:
            if i < len(samples[name]) and "completion" in samples[name][i]:
                pair = [samples[name][i], samples[results["baseline"]][i]]
                parts += [f"**Prompt**: {_short(as_text(pair[0]['prompt']))}", ""]
                parts += [*rows([name, results["baseline"]], [[_short(side["completion"]) for side in pair]]), ""]
    return parts


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."
