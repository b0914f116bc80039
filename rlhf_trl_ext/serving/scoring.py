"""Rewards of a sampled share of the traffic, by a reward model in a process of its own, in the background.

`python -m rlhf_trl_ext.serving.scoring <traffic.sqlite> <reward model> <share>` is what the gateway starts.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from rlhf_trl_ext.serving.engine import cancelled
from rlhf_trl_ext.serving.traffic import connect
from rlhf_trl_ext.stages.guard import end_with_parent

logger = logging.getLogger(__name__)

BATCH, PAUSE = 64, 1.0
UNSCORED = (
    "select rowid, id, prompt, completion from answers "
    "where rowid > ? and status = 'complete' and reward is null order by rowid limit ?"
)
SCORED = "select rowid, policy, reward from answers where rowid > ? and reward is not null order by rowid"


def sampled(answer_id: str, share: float) -> bool:
    """Whether an answer is of the share: always the same ones."""
    return int.from_bytes(hashlib.sha256(answer_id.encode()).digest()[:8]) < share * 2**64


def score(connection: sqlite3.Connection, reward, share: float, after: int) -> int:
    """Score the next answers; returns the last row that was looked at. reward: as `rewards.model.RewardModel`."""
    rows = connection.execute(UNSCORED, (after, BATCH)).fetchall()
    for row, answer_id, prompt, completion in rows:
        if not sampled(answer_id, share):
            continue
        prompt = json.loads(prompt)
        turns = [{"role": "assistant", "content": completion}] if isinstance(prompt, list) else completion
        try:
            value = reward([prompt], [turns])[0]
        except Exception as error:  # a chat that the reward model's template refuses
            logger.warning("answer %s is not scored (%s).", answer_id, type(error).__name__)
            continue
        with connection:
            connection.execute("update answers set reward = ? where rowid = ?", (value, row))
    return rows[-1][0] if rows else after


class Scoring:
    """The process that scores, and what it has scored as metrics. share: of the answers, in (0, 1]."""

    def __init__(self, traffic: Path, reward: str, share: float, log: Path, metrics):
        if not 0 < share <= 1:
            raise ValueError(f"reward_share={share}: a share above 0 and at most 1 is needed.")
        self.traffic, self.log, self.metrics = traffic, log, metrics
        self.command = [sys.executable, "-m", __name__, str(traffic), reward, str(share)]
        self._process, self._task = None, None

    async def start(self) -> None:
        with self.log.open("ab") as output:
            where = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            self._process = await asyncio.create_subprocess_exec(*self.command, preexec_fn=end_with_parent, **where)
        self._task = asyncio.create_task(self._observe())

    async def stop(self) -> None:
        await cancelled(self._task)
        if self._process and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    async def _observe(self) -> None:
        connection, last = connect(self.traffic), 0
        last = connection.execute("select coalesce(max(rowid), 0) from answers").fetchone()[0]
        with contextlib.closing(connection):
            while True:
                await asyncio.sleep(PAUSE)
                for row, policy, reward in connection.execute(SCORED, (last,)).fetchall():
                    self.metrics.reward.labels(policy).observe(reward)
                    last = row
                if self._process.returncode is not None:
                    logger.error("scoring ended with code %s; see %s.", self._process.returncode, self.log)
                    return


def main() -> None:
    from rlhf_trl_ext.rewards.model import RewardModel

    traffic, path, share = sys.argv[1:]
    reward, connection, after = RewardModel(path), connect(Path(traffic)), 0
    while True:
        before, after = after, score(connection, reward, float(share), after)
        if before == after:
            time.sleep(PAUSE)


if __name__ == "__main__":
    main()
