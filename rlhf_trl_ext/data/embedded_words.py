"""Words and sentences of the lost-and-found desk, the embedded task; no code but one vocabulary.

The fact lists are disjoint, and no sentence contains a fact word, so the facts of a prompt can be read back from its
text. Every sentence that names the facts is 7 or 8 words long: with a greeting it still fits a wish for brevity.
"""

import re

NAMES = (
    "Mina", "Paula", "Lena", "Jonas", "Oscar", "Vera", "Felix", "Nora",
    "Hugo", "Clara", "Emil", "Ruth", "Simon", "Tessa", "Victor", "Wanda",
)  # fmt: skip
ADJECTIVES = (
    "broken", "striped", "blue", "silver", "small", "green",
    "wooden", "red", "heavy", "yellow", "round", "purple",
)  # fmt: skip
ITEMS = (
    "hammer", "lamp", "helmet", "blanket", "camera", "jacket", "ladder", "basket",
    "umbrella", "guitar", "kettle", "wallet", "mirror", "bottle", "scarf", "pillow",
)  # fmt: skip
PLACES = (
    "garden", "library", "office", "kitchen", "attic", "garage",
    "cellar", "hallway", "workshop", "chapel", "stable", "theatre",
)  # fmt: skip

REPORTS = (
    "My name is {name} and I think my {adjective} {item} is still in the {place}.",
    "I am {name}. I lost my {adjective} {item} in the {place}.",
    "Good morning, {name} here. Did anyone find a {adjective} {item} in the {place}?",
    "Can you help me? I am {name} and I left a {adjective} {item} in the {place}.",
    "This is {name}. Has my {adjective} {item} turned up in the {place}?",
)
WISHES = ("Keep it short.", "Be brief, please.", "A few words will do.")

GREETINGS = ("Hello", "Hi", "Welcome", "Dear")
SENTENCES = (
    "we will look for the {item} in the {place}.",
    "someone will check the {place} for the {item}.",
    "you may find the {item} in the {place}.",
    "please visit the {place} to get the {item}.",
)
SHORT_SENTENCES = ("look in the {place}.", "the {item} may be gone.", "try the {place}.")
VAGUE_SENTENCES = ("that is not my problem.", "things get lost.", "ask someone else.", "maybe it will turn up.")
CLOSINGS = ("Have a lovely day!", "Take good care!", "We are glad to help.", "Hope this helps.")


def words_of(text: str) -> list[str]:
    """The words of a text in order: unbroken runs of ASCII letters, case kept."""
    return re.findall(r"[A-Za-z]+", text)


def capitalised(sentence: str) -> str:
    """The sentence with its first letter in upper case and the rest unchanged."""
    return sentence[:1].upper() + sentence[1:]


def vocabulary() -> tuple[str, ...]:
    """Every word of the task in its written forms (lower case and capitalised where both occur), sorted."""
    sentences = SENTENCES + SHORT_SENTENCES + VAGUE_SENTENCES
    plain = re.compile(r"{\w+}")
    texts = (*REPORTS, *WISHES, *GREETINGS, *CLOSINGS, *sentences, *map(capitalised, sentences))
    words = {word for text in texts for word in words_of(plain.sub(" ", text))}
    return tuple(sorted(words | {*NAMES, *ADJECTIVES, *ITEMS, *PLACES}))
