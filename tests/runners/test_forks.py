"""What a model's own processes do is theirs: however they are started, and however they end, the worker serves on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.runners import spawn as child
from gateway.system import reaper
from gateway.system.reaper import Reaper
from gateway.worker.direct_reading import AFTER

from .confined import confined
from .started import Started, gone, started, until, write

pytestmark = pytest.mark.anyio

MODEL = """
    import asyncio, multiprocessing, os, signal, subprocess, sys, threading, time
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import shared_memory

    from model.sibling import Box
    from tools import double

    def held():
        found = {}
        for fd in os.listdir("/proc/self/fd"):
            try: found[fd] = os.readlink(f"/proc/self/fd/{fd}")
            except OSError: pass
        return found

    LOG = os.readlink("/proc/self/fd/2")
    AT_FIRST = [name for name in held().values() if name.startswith("socket:") and name != LOG]

    class Point:
        def __init__(self, x): self.x = x

    def square(point): return Point(point.x ** 2)

    def die(how):
        if how == "exit": sys.exit(3)
        if how == "raise": raise ValueError("of the child")
        if how == "_exit": os._exit(4)
        os.kill(os.getpid(), getattr(signal, how))

    def sleep(ready):
        ready.set()
        time.sleep(600)

    def look(_):
        handlers = [signal.getsignal(getattr(signal, name)) for name in ("SIGTERM", "SIGINT", "SIGCHLD")]
        blocked = [number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
        print("a line of a child")
        return {"handlers": [getattr(one, "name", 0) or one.__name__ for one in handlers], "blocked": blocked,
                "wakeup": signal.set_wakeup_fd(-1), "held": held(), "of the worker": AT_FIRST, "path": sys.path}

    class Work:
        \"\"\"All that is done here, on whichever thread.\"\"\"

        def terminate(self, start):
            context = multiprocessing.get_context(start)
            ready = context.Event()
            process = context.Process(target=sleep, args=(ready,))
            process.start()
            if start != "fork": ready.wait()  # else at once: it may not even have begun
            process.terminate()
            process.join(30)
            return process.exitcode

        def die(self, given):
            start, how = given
            process = multiprocessing.get_context(start).Process(target=die, args=(how,))
            process.start()
            process.join(30)
            return process.exitcode

        def pool(self, start):
            with multiprocessing.get_context(start).Pool(2) as pool:
                points = pool.map(square, [Point(2), Point(3)])
                return [point.x for point in points] + pool.map(double, [4]) + [pool.apply(Box(5).get)]

        def executor(self, start):
            context, broken = multiprocessing.get_context(start), []
            for how in ("SIGKILL", "SIGTERM"):
                with ProcessPoolExecutor(2, mp_context=context) as executor:
                    assert executor.submit(double, 1).result() == 2
                    try: executor.submit(die, how).result()
                    except BrokenProcessPool: broken.append(how)
            with ProcessPoolExecutor(1, mp_context=context) as executor:
                return [broken, executor.submit(double, 2).result()]

        def shared(self, start):
            context = multiprocessing.get_context(start)
            queue = context.Queue()
            with context.Manager() as manager:
                memory = shared_memory.SharedMemory(create=True, size=8)
                try:
                    values = manager.dict(a=1)
                    process = context.Process(target=fill, args=(queue, values, memory.name))
                    process.start()
                    found = [queue.get(timeout=30)]
                    process.join(30)
                    return [*found, dict(values), memory.buf[0], process.exitcode]
                finally:
                    memory.close(); memory.unlink()

        def look(self, start):
            with multiprocessing.get_context(start).Pool(1) as pool: return pool.map(look, [0])[0]

        def child(self, start):
            context = multiprocessing.get_context(start)
            ready = context.Event()
            self.process = context.Process(target=sleep, args=(ready,))
            self.process.start()
            ready.wait()
            return self.process.pid

        def fork(self, how):
            child = os.fork()
            if not child:
                if how == "return": return "the child's"
                die(how)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        def programs(self, _):
            wait = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
            shell = f"{sys.executable} -c 'import time; print(flush=True); time.sleep(600)'; true"
            ends = []
            for command, options, number in (
                (wait, {}, signal.SIGTERM),
                (wait, {}, signal.SIGINT),
                (wait, {"preexec_fn": lambda: None}, signal.SIGTERM),
                (shell, {"shell": True}, signal.SIGTERM),
                (wait, {"start_new_session": True}, signal.SIGTERM),
            ):
                process = subprocess.Popen(command, stdout=subprocess.PIPE, **options)
                process.stdout.readline()
                group = options.get("start_new_session") and os.killpg
                (group or os.kill)(process.pid, number)
                ends.append(process.wait(30))
            return ends

        def tied(self, _):
            import ctypes
            def tie(): ctypes.CDLL(None).prctl(1, signal.SIGKILL)
            return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], preexec_fn=tie).pid

    def fill(queue, values, name):
        memory = shared_memory.SharedMemory(name)
        memory.buf[0] = 7
        memory.close()
        values["b"] = 2
        queue.put({"from": "the child"})

    class Teller:
        def __init__(self, secrets): self.secrets = secrets
        def tell(self): return [os.getpid(), self.secrets["token"]]

    class Model:
        def __init__(self, secrets):
            self.secrets, self.work = secrets, Work()

        def load(self):
            self.loaded = {name: getattr(self.work, name)(given) for name, given in BEFORE.items()}

        def predict(self, x): return [os.getpid(), self.loaded]
        def thread(self, given): return getattr(self.work, given[0])(given[1])
        async def loop(self, given): return getattr(self.work, given[0])(given[1])
        async def turning(self, given):
            child = os.fork()
            if not child:
                await asyncio.sleep(0)
                while True: await asyncio.sleep(600)
            return os.waitstatus_to_exitcode(await asyncio.to_thread(lambda: os.waitpid(child, 0)[1]))
        def stream(self, how):
            yield "one"
            child = os.fork()
            if not child:
                if how == "return": return
                if how == "go on": yield "the child's"
                die(how)
            yield os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        def pickled(self, x):
            with multiprocessing.get_context("spawn").Pool(1) as pool: return pool.apply(Teller(self.secrets).tell)
        def tell(self, number): os.kill(os.getpid(), number)

    BEFORE = {"terminate": "fork", "executor": "fork", "pool": "forkserver", "child": "fork", "tied": None}
    """
FILES = {
    "model/model.py": MODEL,
    "model/sibling.py": "class Box:\n    def __init__(self, x): self.x = x\n    def get(self): return self.x\n",
    "packages/tools.py": "def double(x): return 2 * x\n",
}
METHODS = ("thread", "loop", "turning", "stream", "pickled", "tell")
ENDS = {"exit": 3, "raise": 1, "_exit": 4, "SIGTERM": -15, "SIGKILL": -9, "SIGINT": -2}
STARTS = ("fork", "spawn", "forkserver")
SPEC: dict[str, Any] = {"secrets": ("token",), "memory_limit": 8 << 30}


@pytest.fixture(scope="module")
async def model(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Started]:
    """One worker for all that must not harm it."""
    root = write(tmp_path_factory.mktemp("forks"), FILES)
    spec = {**SPEC, "import_dirs": (root / "packages",)}
    async with started(root, "", *METHODS, spec=spec, secrets={"token": "hunter22"}) as found:
        yield found
        assert (await found.ask("predict"))[0] == found.replica.pid
        assert not found.replica.lost.done()


async def test_what_is_started_while_it_loads(model: Started) -> None:
    _, loaded = await model.ask("predict")
    assert loaded["terminate"] == -15
    assert loaded["executor"] == [["SIGKILL", "SIGTERM"], 4]
    assert loaded["pool"] == [4, 9, 8, 5]
    for name in ("child", "tied"):  # which outlive the thread that loaded it
        os.kill(loaded[name], 0)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("where", ["thread", "loop"])
async def test_processes_of_every_start_method_do_what_they_do_elsewhere(
    model: Started, where: str, start: str
) -> None:
    assert await model.ask(where, ["terminate", start]) == -15
    assert await model.ask(where, ["pool", start]) == [4, 9, 8, 5]
    assert await model.ask(where, ["executor", start]) == [["SIGKILL", "SIGTERM"], 4]
    assert await model.ask(where, ["shared", start]) == [{"from": "the child"}, {"a": 1, "b": 2}, 7, 0]


@pytest.mark.parametrize("where", ["thread", "loop"])
async def test_a_childs_end_is_its_own_and_says_how_it_ended(model: Started, where: str) -> None:
    for how, code in ENDS.items():
        expected = 1 if how == "SIGINT" else code  # a KeyboardInterrupt, which multiprocessing reports
        assert await model.ask(where, ["die", ["fork", how]]) == expected


@pytest.mark.parametrize("where", ["thread", "loop"])
async def test_a_process_forked_by_hand_ends_where_its_code_comes_back(model: Started, where: str) -> None:
    for how, code in {**ENDS, "return": 0}.items():
        expected = 1 if how == "SIGINT" else code
        assert await model.ask(where, ["fork", how]) == expected, how
    await model.log.find("returned from the model's code")
    await model.log.find("ValueError: of the child")


async def test_a_process_forked_by_a_thread_that_reads_its_own_calls_takes_none_of_them(model: Started) -> None:
    for _ in range(3):
        for _ in range(2 * AFTER):
            assert (await model.ask("predict"))[0] == model.replica.pid
        assert await model.ask("thread", ["fork", "return"]) == 0


async def test_a_forked_process_cannot_turn_the_workers_loop(model: Started) -> None:
    assert await model.ask("turning") == 0


@pytest.mark.parametrize("how", ["return", "go on", "exit", "raise", "_exit", "SIGKILL"])
async def test_a_process_forked_in_a_stream_adds_nothing_to_it(model: Started, how: str) -> None:
    assert await model.read(model.open("stream", how, stream=True)) == ["one", ENDS.get(how, 0)]


@pytest.mark.parametrize("where", ["thread", "loop"])
async def test_a_forked_process_has_nothing_of_the_worker(model: Started, where: str) -> None:
    child = await model.ask(where, ["look", "fork"])
    assert child["handlers"] == ["SIG_DFL", "default_int_handler", "SIG_DFL"]
    assert child["blocked"] == []
    assert child["wakeup"] == -1
    assert len(set(child["of the worker"])) >= 3  # the channel, and the pair that wakes the loop
    assert not set(child["of the worker"]) & set(child["held"].values())
    assert "anon_inode:[eventfd]" not in child["held"].values()
    await model.log.find("a line of a child")


async def test_a_spawned_process_is_no_worker_and_imports_what_the_model_imports(model: Started) -> None:
    for start in ("spawn", "forkserver"):
        child = await model.ask("thread", ["look", start])
        assert str(model.launch.spec.root) == child["path"][0]
        assert child["handlers"] == ["SIG_DFL", "default_int_handler", "SIG_DFL"]
        assert child["blocked"] == []


async def test_what_the_model_was_given_can_be_sent_to_a_process(model: Started) -> None:
    pid, token = await model.ask("pickled")
    assert pid != model.replica.pid
    assert token == "hunter22"


async def test_programs_end_by_the_signals_that_they_are_sent(model: Started) -> None:
    for where in ("thread", "loop"):
        assert await model.ask(where, ["programs", None]) == [-15, -2, -15, -15, -15]


async def test_ctrl_c_is_not_for_the_worker(model: Started) -> None:
    await model.ask("tell", int(signal.SIGINT))


async def test_children_die_with_the_worker(tmp_path: Path) -> None:
    root = write(tmp_path, FILES)
    for end in ("SIGKILL", "SIGTERM"):
        spec = {**SPEC, "import_dirs": (root / "packages",)}
        async with started(root, "", *METHODS, spec=spec, secrets={"token": "x"}) as found:
            loaded = (await found.ask("predict"))[1]
            pids = [loaded["child"], loaded["tied"], *[await found.ask("thread", ["child", start]) for start in STARTS]]
            assert found.replica.pid is not None
            os.kill(found.replica.pid, getattr(signal, end))
            await found.replica.lost
            await found.replica.kill("it is lost")
            await asyncio.gather(*(gone(pid) for pid in pids))


@pytest.mark.parametrize("end", ["stop", "kill", "crash"])
async def test_what_left_the_workers_group_goes_with_it(tmp_path: Path, end: str) -> None:
    source = """
        import os, signal, subprocess, sys
        SLEEP = "import signal, time; signal.signal(signal.SIGTERM, %s); print('up', flush=True); time.sleep(600)"
        class Model:
            def load(self):
                self.children = [self.start(how) for how in ("signal.SIG_DFL", "signal.SIG_IGN")]
                self.forked = os.fork()
                if self.forked == 0:
                    os.setsid()
                    signal.pause()
                    os._exit(0)
            def start(self, how):
                command = [sys.executable, "-S", "-c", SLEEP % how]
                child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
                child.stdout.readline()
                return child
            def predict(self, x): return [child.pid for child in self.children] + [self.forked]
        """
    async with started(tmp_path, source) as found:
        pids = await found.ask("predict")
        if end == "stop":
            await found.replica.stop(10)
        elif found.replica.pid is not None and end == "crash":
            os.kill(found.replica.pid, signal.SIGSEGV)
            await found.replica.lost
        await found.replica.kill("it has ended")
        await asyncio.gather(*(gone(pid) for pid in pids))


HIDDEN = """
    import signal, subprocess, sys
    SLEEP = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    class Model:
        def load(self):
            command = [sys.executable, "-I", "-S", "-c", SLEEP]
            self.child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, env={})
            self.child.stdout.readline()
        def predict(self, x): return self.child.pid
    """


@pytest.fixture
def unkept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strict worker has no keeper, as after its keeper was killed: its processes are searched then."""
    monkeypatch.setattr(child, "Keeper", lambda: None)


@confined
@pytest.mark.usefixtures("unkept")
@pytest.mark.parametrize("end", ["stop", "kill", "crash"])
async def test_what_hides_from_a_strict_worker_goes_with_it(tmp_path: Path, end: str) -> None:
    async with started(tmp_path, HIDDEN, spec={"sandbox": "strict"}) as found:
        pid = await found.ask("predict")
        if end == "stop":
            await found.replica.stop(10)
        elif found.replica.pid is not None and end == "crash":
            os.kill(found.replica.pid, signal.SIGSEGV)
            await found.replica.lost
        await found.replica.kill("it has ended")
        await gone(pid)


LEFT = """
    import signal, subprocess, sys
    SLEEP = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    class Model:
        def load(self):
            command = [sys.executable, "-S", "-c", SLEEP]
            self.children = [subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) for _ in "12"]
            for child in self.children: child.stdout.readline()
        def predict(self, x): return [child.pid for child in self.children]
    """


async def test_what_left_the_group_is_ended_however_long_it_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a search finds is killed before anybody looks at the clock, and the search is not on the event loop."""
    threads: set[threading.Thread] = set()

    def slowly(*arguments: Any, **options: Any) -> list[int]:
        threads.add(threading.current_thread())
        time.sleep(0.2)  # the search that is slow
        return reaper.signal_strays(*arguments, **options)

    def still(*arguments: Any) -> bool:
        threads.add(threading.current_thread())
        return reaper.is_of(*arguments)

    monkeypatch.setattr(child, "signal_strays", slowly)
    monkeypatch.setattr(child, "is_of", still)
    monkeypatch.setattr(child, "CHILDREN_GRACE", 0.1)
    async with started(tmp_path, LEFT) as found:
        pids = await found.ask("predict")
        monkeypatch.setattr(child, "KILLING", 0.1)
        await found.replica.kill("it has ended")
        await asyncio.gather(*(gone(pid) for pid in pids))
        found.guarded.clear()
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("how", ["there is always one more", "the kernel reads one forever"])
async def test_what_cannot_be_ended_stays_known_to_the_reaper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    over = threading.Event()

    def always(*_: Any, **__: Any) -> list[int]:
        if "forever" in how:
            over.wait()
        return [2**22 + 1]

    async with started(tmp_path, LEFT) as found:
        await found.ask("predict")
        monkeypatch.setattr(child, "signal_strays", always)
        monkeypatch.setattr(child, "KILLING", 0.05)
        monkeypatch.setattr(child, "SEARCH", 0.5)
        await found.replica.kill("it has ended")
        over.set()
        assert found.guarded == {found.replica.pid}
        await found.log.find("could not be ended")
        found.guarded.clear()
        for pid in reaper.signal_strays(signal.SIGKILL, found.replica._child._mark):
            await gone(pid)


async def test_what_left_the_group_is_found_however_large_the_environment_is(tmp_path: Path) -> None:
    large = {f"V{number}": "x" * 1024 for number in range(500)}
    async with started(tmp_path, LEFT, environment=large) as found:
        pids = await found.ask("predict")
        await found.replica.kill("it has ended")
        await asyncio.gather(*(gone(pid) for pid in pids))


@confined
@pytest.mark.usefixtures("unkept")
async def test_for_a_strict_worker_nothing_that_other_processes_write_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any) -> bool:
        raise AssertionError("an environment was read")

    monkeypatch.setattr(reaper, "_has_mark", read)
    async with started(tmp_path, HIDDEN, spec={"sandbox": "strict"}) as found:
        pid = await found.ask("predict")
        await found.replica.kill("it has ended")
        await gone(pid)


@confined
async def test_nothing_of_a_strict_model_runs_before_its_network_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hides and is left alone by a worker that ends at once could else be there before anybody has looked."""
    looks: list[bytes] = []

    def late(pid: int) -> int | None:
        time.sleep(0.5)  # the gateway was busy: time enough to begin, for one whom nothing keeps
        looks.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        return reaper.hold_network(pid)

    monkeypatch.setattr(child, "hold_network", late)
    async with started(tmp_path, HIDDEN, spec={"sandbox": "strict"}) as found:
        await found.ask("predict")
    (command,) = looks
    assert b"sandbox/start.py" in command


@confined
async def test_what_hides_from_a_strict_worker_goes_with_a_gateway_that_is_killed(tmp_path: Path) -> None:
    ours = Reaper()
    async with started(tmp_path, HIDDEN, spec={"sandbox": "strict"}) as found:
        pid = await found.ask("predict")
        assert found.replica.pid is not None
        ours.add(found.replica.pid, "another mark")
        ours.close()
        await gone(pid)


LEADERLESS = """
    import ctypes, os, subprocess, sys
    EXIT = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
    CODE = f"import ctypes, threading, time; begun = threading.Event()\\n" \
        "threading.Thread(target=lambda: (begun.set(), time.sleep(600))).start()\\n" \
        f"begun.wait(); print('up', flush=True); ctypes.CDLL(None).syscall({EXIT}, 0)"
    class Model:
        def load(self):
            command, env = [sys.executable, "-I", "-S", "-c", CODE], ENV
            self.child = subprocess.Popen(command, start_new_session=True, env=env, stdout=subprocess.PIPE)
            self.child.stdout.readline()
        def predict(self, x): return self.child.pid
    """


async def without_leader(pid: int) -> None:
    """Wait until the first thread of a process has ended, but not the process."""
    await until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert len(os.listdir(f"/proc/{pid}/task")) == 2


async def test_a_process_whose_first_thread_has_ended_goes_with_its_worker(tmp_path: Path) -> None:
    async with started(tmp_path, LEADERLESS.replace("ENV", "None")) as found:
        await without_leader(pid := await found.ask("predict"))
        await found.replica.kill("it has ended")
        await gone(pid)


@confined
@pytest.mark.usefixtures("unkept")
async def test_a_process_whose_first_thread_has_ended_goes_with_its_strict_worker(tmp_path: Path) -> None:
    async with started(tmp_path, LEADERLESS.replace("ENV", "{}"), spec={"sandbox": "strict"}) as found:
        await without_leader(pid := await found.ask("predict"))
        await found.replica.kill("it has ended")
        await gone(pid)


@confined
async def test_a_process_whose_first_thread_has_ended_goes_with_a_gateway_that_is_killed(tmp_path: Path) -> None:
    ours = Reaper()
    async with started(tmp_path, LEADERLESS.replace("ENV", "{}"), spec={"sandbox": "strict"}) as found:
        await without_leader(pid := await found.ask("predict"))
        assert found.replica.pid is not None
        ours.add(found.replica.pid, "another mark")
        ours.close()
        await gone(pid)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_no_signal_to_very_many_processes_is_work_of_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """One call signals all, or reaps one of them; a model decides how many there are."""
    calls: list[tuple[str, int, threading.Thread]] = []

    def noted(name: str, call: Callable[[int, int], Any]) -> Callable[[int, int], Any]:
        def noting(pid: int, number: int) -> Any:
            if name != "waitpid" or pid < 0:  # the worker itself is reaped by the loop
                calls.append((name, abs(pid), threading.current_thread()))
            return call(pid, number)

        return noting

    async with started(tmp_path, LEFT) as found:
        for name in ("kill", "killpg", "waitpid"):
            monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
        await found.replica._child.end(5.0 if end == "stop" else 0.0)
        monkeypatch.undo()
    of_worker = {name for name, pid, _ in calls if pid == found.replica.pid}
    assert of_worker == {"killpg", "waitpid", *(["kill"] if end == "kill" else [])}
    assert threading.main_thread() not in [thread for _, _, thread in calls]


async def test_a_worker_is_ended_though_the_system_has_no_more_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model may have them. What left its group is then not searched, and stays known to the reaper."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    source = "class Model:\n    def predict(self, x): return 0"
    async with started(tmp_path, source) as found:
        pid = found.replica.pid
        assert pid is not None
        with monkeypatch.context() as without:
            without.setattr(threading.Thread, "start", start)
            await found.replica.kill("it has ended")
        await gone(pid)
        assert found.guarded == {pid}
        found.guarded.clear()


@pytest.mark.parametrize("end", ["stop", "kill", "crash"])
async def test_shared_memory_of_a_model_goes_with_it(tmp_path: Path, end: str) -> None:
    source = """
        import os
        from multiprocessing import get_context, shared_memory
        class Model:
            def load(self):
                self.memory, self.lock = shared_memory.SharedMemory(create=True, size=8), get_context("spawn").Lock()
                self.ready = get_context("spawn").Event()
                self.child = get_context("spawn").Process(target=self.ready.wait)
                self.child.start()
            def predict(self, x): return [self.memory.name, self.lock._semlock.name, self.child.pid]
        """
    async with started(tmp_path, source) as found:
        memory, lock, child = await found.ask("predict")
        names = [Path("/dev/shm") / memory, Path(f"/dev/shm/sem.{lock[1:]}")]
        assert all(name.exists() for name in names)
        if end == "stop":
            await found.replica.stop(10)
        elif found.replica.pid is not None and end == "crash":
            os.kill(found.replica.pid, signal.SIGSEGV)
            await found.replica.lost
        await found.replica.kill("it has ended")
        await gone(child)
        assert not any(name.exists() for name in names)


@pytest.mark.parametrize("file", ["model.py", "src/serve.py", "model/other.py", "model/model.py"])
async def test_a_spawned_process_finds_what_is_defined_in_the_models_file(tmp_path: Path, file: str) -> None:
    source = """
        import multiprocessing
        def double(x): return 2 * x
        class Model:
            def predict(self, x):
                with multiprocessing.get_context("spawn").Pool(1) as pool: return pool.apply(double, [x])
        """
    write(tmp_path, {file: source})
    target = file.removesuffix(".py").replace("/", ".") + ":Model"
    async with started(tmp_path, spec={"target": target}) as found:
        assert await found.ask("predict", 21) == 42
