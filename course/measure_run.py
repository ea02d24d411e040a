"""What a student's run needs: minutes, memory, disk. Starts nothing; watches a command until it ends.

    make reproduce & .venv/bin/python course/measure_run.py $! > docs/instructors/measured_run.json

Memory is resident, once a second; pages that processes share are counted for each of them, so it is rather too much.
"""

import json
import os
import sys
import time
from pathlib import Path

import psutil

FOLDERS = (".venv", "data/results", "build", "figures")
"""Of the checkout in which the command runs."""
MB = 1e6


def resident(process):
    """Return the memory of a process in bytes; 0 if it has just ended."""
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def size(folder):
    """Return the bytes that the files of a folder take on the disk; links are not followed."""
    files = (path.lstat() for path in folder.rglob("*"))
    return sum(512 * file.st_blocks for file in files)


def watched(process):
    """Return what a process and its descendants needed at most, once it has ended."""
    checkout, began, watching = Path(process.cwd()), process.create_time(), time.time()
    command, most = " ".join(process.cmdline()), {"processes": 0, "mb_in_all": 0, "mb_of_one": 0}
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        try:
            held = [resident(each) for each in (process, *process.children(recursive=True))]
        except psutil.NoSuchProcess:
            break
        for name, now in (("processes", len(held)), ("mb_in_all", sum(held) / MB), ("mb_of_one", max(held) / MB)):
            most[name] = max(most[name], round(now))
        time.sleep(1)
    return {
        "command": command,
        "minutes": round((time.time() - began) / 60, 1),
        "minutes_before_it_was_watched": round((watching - began) / 60, 1),
        "cores": os.cpu_count(),
        "at_most": most,
        "mb_on_disk": {name: round(size(checkout / name) / MB) for name in FOLDERS},
    }


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit() or not psutil.pid_exists(int(sys.argv[1])):
        sys.exit("usage: measure_run.py PID, of a command that runs")
    print(json.dumps(watched(psutil.Process(int(sys.argv[1]))), indent=1))
