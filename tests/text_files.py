"""Text files for tests: documents of English-like sentences in which words, names and numbers recur."""

from pathlib import Path

from quickstudy.seeding import rng

_SUBJECTS = (
    "bank",
    "nurse",
    "engine",
    "river",
    "court",
    "farmer",
    "market",
    "teacher",
    "doctor",
    "pilot",
    "baker",
    "singer",
    "lawyer",
    "sailor",
)
_VERBS = (
    "watched",
    "measured",
    "repaired",
    "described",
    "crossed",
    "followed",
    "painted",
    "counted",
    "opened",
    "cleaned",
    "borrowed",
    "noticed",
)
_OBJECTS = (
    "bridge",
    "report",
    "garden",
    "machine",
    "letter",
    "window",
    "harbour",
    "patient",
    "contract",
    "mountain",
    "basket",
    "carpet",
    "ladder",
    "mirror",
    "pencil",
    "saddle",
    "statue",
    "tunnel",
    "violin",
    "wallet",
)
_NAMES = ("Berlin", "Lagos", "Quito", "Osaka", "Turin", "Perth", "Halifax")
_ADVERBS = ("slowly", "twice", "again", "yesterday", "alone", "carefully", "together", "early")


def write_document(number: int, seed: int = 0, sentences: int = 12) -> str:
    """Return a document of sentences that other documents do not have."""
    random = rng(seed, "document", number)

    def draw(words: tuple[str, ...]) -> str:
        return str(random.choice(words))

    return " ".join(
        f"The {draw(_SUBJECTS)} in {draw(_NAMES)} {draw(_VERBS)} the {draw(_OBJECTS)} and the {draw(_OBJECTS)} "
        f"{draw(_ADVERBS)} {random.integers(2, 9)} times in row {number}x{i}."
        for i in range(sentences)
    )


def write_corpus(file: Path, documents: int = 250, seed: int = 0) -> Path:
    """Write documents to a file of plain text, with blank lines between them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n\n".join(write_document(i, seed) for i in range(documents)) + "\n", encoding="utf-8")
    return file
