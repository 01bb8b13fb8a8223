"""The demo's workers: one process of this program is one worker.

``count_words`` counts the words in a list of files and says how far it is; ``write_summary`` writes down the most
frequent words of a package, and is meant for the background: nobody waits for its result.

    python words.py NAME      a worker that job servers list as NAME; they are found by $GEARMAN_SERVERS
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

from geartrain import AssignedJob, Worker

WORD = re.compile(r"[a-z]{4,}")

worker = Worker(id=sys.argv[1])


@worker.function()
def count_words(job: AssignedJob) -> bytes:
    """Workload: file names, one a line. Result: JSON with this worker's name, the files, and the words' counts."""
    files = job.workload.decode().splitlines()
    counts: Counter[str] = Counter()
    for number, file in enumerate(files, 1):
        counts += words_of(Path(file))
        job.progress(number, len(files))
    return json.dumps({"worker": worker.id, "files": len(files), "counts": counts}).encode()


@worker.function()
def write_summary(job: AssignedJob) -> None:
    """Workload: JSON with the ``folder`` of a package and the ``file`` to write its summary to."""
    task = json.loads(job.workload)
    counts: Counter[str] = Counter()
    for file in sorted(Path(task["folder"]).rglob("*.py")):
        counts += words_of(file)
    lines = [f"{count:8} {word}\n" for word, count in counts.most_common(20)]
    Path(task["file"]).write_text("".join(lines))


def words_of(file: Path) -> Counter[str]:
    return Counter(WORD.findall(file.read_text(errors="replace").lower()))


if __name__ == "__main__":
    worker.run()
