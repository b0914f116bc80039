"""Which policy answers: by name, or by shares, the same one throughout a conversation."""

import hashlib
import json

from rlhf_trl_ext.serving.limits import Refusal

AUTO = "auto"  # the model's name for "by shares"


class Routing:
    """names: of the policies. shares: of the conversations, by name; None for equal ones.

    Raises ValueError for shares of unknown policies, negative ones, and such that do not sum to 1.
    """

    def __init__(self, names: list[str], shares: dict[str, float] | None = None):
        self.shares = shares or dict.fromkeys(names, 1 / len(names))
        if AUTO in names:
            raise ValueError(f"policies.{AUTO}: this name chooses by shares; give the policy another one.")
        low, total = min(self.shares.values()), sum(self.shares.values())
        if set(self.shares) - set(names) or low < 0 or abs(total - 1) > 1e-6:
            given = ", ".join(f"{name}: {share}" for name, share in self.shares.items())
            raise ValueError(f"shares={{{given}}}: give shares of {', '.join(names)} that sum to 1.")
        self.names = [*names, AUTO]

    def choose(self, body: dict, conversation: str | None = None) -> tuple[str, str]:
        """(policy, conversation) of a request. Raises Refusal (404) for a model that is not served.

        A conversation is named by the header X-Conversation-Id, by metadata.conversation, or else by its user and its
        first turn, which later turns repeat.
        """
        if conversation is None:
            metadata = body.get("metadata")
            conversation = metadata.get("conversation") if isinstance(metadata, dict) else None
        if not isinstance(conversation, str):
            first = body.get("prompt") or next((t for t in body["messages"] if t.get("role") == "user"), None)
            conversation = hashlib.sha256(json.dumps([body.get("user"), first]).encode()).hexdigest()[:32]
        model = body.get("model", AUTO)
        if model not in self.names:
            raise Refusal(404, f"model={str(model)[:100]}: allowed are {', '.join(self.names)}.")
        return (self._by_share(conversation) if model == AUTO else model), conversation

    def _by_share(self, conversation: str) -> str:
        digest = hashlib.sha256(conversation.encode(errors="surrogatepass")).digest()
        position, edge = int.from_bytes(digest) / 2**256, 0.0
        served = [name for name, share in self.shares.items() if share > 0]
        for name in served:
            edge += self.shares[name]
            if position < edge:
                return name
        return served[-1]  # the shares sum to 1 only up to rounding
