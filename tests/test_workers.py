import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from semaphone.workers import end_with_parent
if __name__ == '__main__':
    pool = ProcessPoolExecutor(2, multiprocessing.get_context('{}'), end_with_parent)
    together = [pool.submit(time.sleep, 0.5) for _ in range(2)]  # so that there are two
    print(*pool._processes, flush=True)
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes where Linux has them")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_workers_end_with_a_parent_that_is_killed(method):
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT.format(method)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    assert all(alive(pid) for pid in workers)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
