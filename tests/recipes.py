"""The files that a Markdown page tells its reader to write, and the commands of one of its sections."""

import re
import shlex

from conftest import ROOT


def write_files(page, folder):
    """Write every block that follows a sentence naming its file, `my_...`, into a folder."""
    named = r"`(my_[\w/]+\.\w+)`(?:(?!```).)*?\n\n```\w+\n(.*?)^```"
    for name, block in re.findall(named, (ROOT / page).read_text(), flags=re.M | re.S):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(block)


def commands(page, heading):
    """The commands of a section as words."""
    section = re.split(r"^## ", (ROOT / page).read_text().partition(f"## {heading}\n")[2], flags=re.M)[0]
    blocks = re.findall(r"^```bash\n(.*?)^```", section, flags=re.M | re.S)
    return [shlex.split(line, comments=True) for line in "".join(blocks).replace("\\\n", " ").splitlines()]
