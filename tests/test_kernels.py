"""Kernels forked from one process: what they share, what is their own, and what happens when something ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from test_notebooks import add_schema, start, write

from reproduce.notebooks import runner
from reproduce.notebooks.kernels import FEW, Forks

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")]
HAS_TORCH = "import sys; print('torch._dynamo' in sys.modules)"


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    root = tmp_path_factory.mktemp("bundle")
    (root / "lib").mkdir()
    (root / "lib" / "own.py").write_text("VALUE = 1\n")
    with Forks(root) as found:
        found.environment()  # starts it
        yield found
    assert found.process is not None
    assert found.process.returncode == 0


@contextmanager
def kernel(forks: Forks, **environment: str) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A kernel as a worker has it: Jupyter starts the command that it finds under the name python3."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (forks.environment() | environment).items():
            patch.setenv(name, value)
        manager, client = start_new_kernel(kernel_name="python3", cwd=str(forks.root))
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def said(client: BlockingKernelClient, source: str, *, then: Callable[[], object] = lambda: None) -> str:
    """What a cell prints, or the name of its error; `then` is called where it has printed."""
    heard: list[str] = []

    def hear(message: dict[str, dict[str, str]]) -> None:
        content = message["content"]
        heard.append(content.get("text", "") or content.get("ename", ""))
        if "text" in content:
            then()

    # else what is asked right after an error is dropped too
    client.execute_interactive(source, output_hook=hear, timeout=60, stop_on_error=False)
    return "".join(heard).strip()


def ended(pid: int) -> bool:
    """Whether a process is gone within some seconds."""
    for _ in range(100):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_forked_kernel_has_what_lessons_import_and_all_else_of_its_own(forks: Forks) -> None:
    with kernel(forks, NAMED="one") as (_, first), kernel(forks, NAMED="two") as (_, second):
        assert said(first, HAS_TORCH) == said(second, HAS_TORCH) == "True"
        assert said(first, "import os; print(os.getcwd(), os.environ['NAMED'])") == f"{forks.root} one"
        assert said(second, "import os; print(os.environ['NAMED'])") == "two"
        assert said(first, "x = 1; import torch; torch.manual_seed(5); print(torch.get_num_threads())") == "1"
        assert said(second, "x") == "NameError"
        assert said(second, "import torch; print(torch.initial_seed() == 5)") == "False"
        pids = [said(client, "import os; print(os.getpid(), os.getsid(0))").split() for client in (first, second)]
        assert [session for _, session in pids] == [pid for pid, _ in pids]  # Ctrl-C in the terminal is not theirs
    assert all(ended(int(pid)) for pid, _ in pids)


def test_what_is_forked_has_one_thread_and_draws_and_trains_in_the_fork(forks: Forks) -> None:
    assert forks.process is not None
    with kernel(forks) as (_, client):
        assert len(list(Path(f"/proc/{forks.process.pid}/task").iterdir())) == 1
        draws = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); print(plt.get_backend())"
        assert said(client, draws).endswith("inline")
        trains = "import torch; w = torch.ones(3, requires_grad=True); o = torch.optim.Adam([w]); (w @ w).backward()"
        assert said(client, f"{trains}; o.step(); print(bool((w < 1).all()))") == "True"
        spawns = "from multiprocessing import get_context; import operator\nwith get_context('spawn').Pool(1) as pool:"
        assert said(client, f"{spawns}\n    print(pool.apply(operator.add, (2, 3)))") == "5"


def test_an_interrupt_reaches_the_kernel_and_it_goes_on(forks: Forks) -> None:
    with kernel(forks) as (manager, client):
        sleeps = "import time\nprint('now', end=' ', flush=True)\ntime.sleep(60)"
        assert said(client, sleeps, then=manager.interrupt_kernel) == "now KeyboardInterrupt"
        assert said(client, "print(1)") == "1"


def test_a_kernel_ends_with_the_process_that_asked_for_it_and_that_with_it(forks: Forks) -> None:
    with kernel(forks) as (manager, client):
        pid, asker = int(said(client, "import os; print(os.getpid())")), manager.provisioner.pid  # type: ignore[union-attr]
        assert pid != asker
        os.kill(asker, signal.SIGKILL)
        assert ended(pid)
    with kernel(forks) as (manager, client):
        os.kill(int(said(client, "import os; print(os.getpid())")), signal.SIGKILL)
        assert ended(manager.provisioner.pid)  # type: ignore[union-attr, arg-type]
        assert not manager.is_alive()


def test_a_library_edited_since_it_was_imported_is_imported_anew(forks: Forks) -> None:
    """Rows and stamps name the files as they are: a kernel that had imported others would be told of wrongly."""
    own = forks.root / "lib" / "own.py"
    before = own.stat()
    own.write_text("VALUE = 2\n")
    with kernel(forks) as (_, client):
        assert said(client, HAS_TORCH) == "False"
    os.utime(own, ns=(before.st_atime_ns, before.st_mtime_ns))
    with kernel(forks) as (_, client):
        assert said(client, HAS_TORCH) == "True"


def test_where_the_process_has_ended_kernels_start_as_ever(tmp_path: Path) -> None:
    with Forks(tmp_path) as forks:
        forks.environment()
        assert forks.process is not None
        forks.process.kill()
        forks.process.wait()
        with kernel(forks) as (_, client):
            assert said(client, HAS_TORCH) == "False"


def test_a_runner_of_several_lessons_forks_their_kernels_and_one_of_few_does_not(tmp_path: Path) -> None:
    add_schema(tmp_path)
    for number in range(FEW):
        write(tmp_path / "notebooks" / f"0{number}_lesson.ipynb", HAS_TORCH)
    for only, found in ((None, "True"), ("00", "False")):
        outcomes = runner.run("smoke", jobs=2, only=only, root=tmp_path, force=True, say=lambda line: None)
        for outcome in outcomes:
            last = nbformat.read(tmp_path / str(outcome.copy), as_version=4).cells[-1]
            assert last.outputs[0].text == f"{found}\n"


def test_of_a_killed_runner_nothing_is_left(tmp_path: Path) -> None:
    add_schema(tmp_path)
    for number in range(FEW):
        waits = f"import os, time\nopen('pid{number}', 'w').write(str(os.getpid()))\ntime.sleep(120)"
        write(tmp_path / "notebooks" / f"0{number}_lesson.ipynb", HAS_TORCH, waits)
    running = start(tmp_path, "--jobs", "2")
    while len(pids := [text for path in tmp_path.glob("pid*") if (text := path.read_text())]) < 2:
        assert running.poll() is None
        time.sleep(0.1)
    parents = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] for pid in pids]
    assert parents[0] == parents[1]  # what was forked
    running.kill()
    running.communicate()
    assert all(ended(int(pid)) for pid in [*pids, *parents])
