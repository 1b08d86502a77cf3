"""What a worker gives up before its model's code begins, asked of real workers."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

import gateway
from gateway.errors import GatewayError
from gateway.files import clearing, locks
from gateway.runners.replica import LoadError
from gateway.system import confinement

from .confined import confined, why_not
from .started import Started, started, write

pytestmark = pytest.mark.anyio

CURIOUS = """
    import ctypes, os, pathlib, resource, socket, subprocess, sys, tempfile

    class Model:
        def predict(self, x): return x
        async def look(self, x):
            status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
            return {"mask": os.umask(0o077), "core": resource.getrlimit(resource.RLIMIT_CORE),
                    "no_new_privs": status["NoNewPrivs"].strip(), "capabilities": status["CapEff"].strip(),
                    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), "session": os.getsid(0) == os.getpid(),
                    "oom": open("/proc/self/oom_score_adj").read().strip(), "pid": os.getpid(),
                    "tmp": tempfile.gettempdir(), "tmp_mode": oct(os.stat(tempfile.gettempdir()).st_mode & 0o777),
                    "parent_dies": self.death_signal(), "cwd": os.getcwd(), "environ": dict(os.environ),
                    "played": getattr(sys, "played", None)}
        def death_signal(self):
            number = ctypes.c_int()
            ctypes.CDLL(None).prctl(2, ctypes.byref(number))
            return number.value
        def write(self, path):
            pathlib.Path(path).write_text("x")
            return "written"
        def shell(self, line): return subprocess.run(line, shell=True).returncode
        def temporary(self, x):
            with tempfile.NamedTemporaryFile("w") as file: file.write("x")
            return "written"
        def connect(self, address):
            with socket.create_connection(address, timeout=5): return "connected"
        def itself(self, x):
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(server.getsockname(), timeout=5).close()
            return "connected"
        def read(self, path): return pathlib.Path(path).read_text()
        def allocate(self, size): return len(bytearray(size))
        def attempt(self, lines):
            "What becomes of each line: the name of its error, or None."
            found = {}
            for line in lines:
                try: exec(line, {}); found[line] = None
                except OSError as error: found[line] = type(error).__name__, os.strerror(error.errno)
            return found
    """
METHODS = ("look", "write", "shell", "temporary", "connect", "itself", "read", "allocate", "attempt")
KEYCTL = {"x86_64": 250, "aarch64": 219}.get(platform.machine())
DENIED = ["PermissionError", "Permission denied"]
NOT_ALLOWED = ["PermissionError", "Operation not permitted"]
READ_ONLY = ["OSError", "Read-only file system"]


async def refused(found: Started, method: str, value: Any, error: str) -> None:
    with pytest.raises(GatewayError):
        await found.ask(method, value)
    async with asyncio.timeout(60):
        await found.log.find(error)


async def test_every_worker_is_kept_from_accidents(tmp_path: Path) -> None:
    async with started(tmp_path, CURIOUS, *METHODS) as found:
        seen = await found.ask("look")
        assert seen["mask"] == 0o077
        assert seen["core"] == [0, 0]
        assert seen["no_new_privs"] == "1"
        assert seen["dumpable"] == 0
        assert seen["session"]
        assert seen["oom"] == "500"
        assert seen["tmp_mode"] == "0o700"
        assert seen["parent_dies"] == 9


@confined
async def test_a_strict_worker_writes_to_its_data_and_its_temporary_files_only(tmp_path: Path) -> None:
    (tmp_path / "m/data").mkdir(parents=True)
    outside = tmp_path / "outside"
    async with started(tmp_path / "m", CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found:
        assert await found.ask("temporary") == "written"
        assert await found.ask("write", "data/kept") == "written"
        assert await found.ask("write", "/dev/null") == "written"
        assert await found.ask("read", "model/model.py")
        await refused(found, "write", str(outside), "Read-only file system")
        await refused(found, "write", "model/model.py", "model/model.py")
        assert await found.ask("shell", f"echo x > {outside}") != 0, "what it starts is bound by the same rules"
        assert await found.ask("shell", f"rm {tmp_path}/m/model/model.py") != 0
        own = {
            "os.chmod('data/kept', 0o600)",
            "os.utime('data/kept')",
            "import shutil; shutil.copy('data/kept', 'data/b')",
        }
        assert set((await found.ask("attempt", [f"import os; {line}" for line in own])).values()) == {None}
    assert not outside.exists()
    assert (tmp_path / "m/model/model.py").read_text() != "x"
    assert (tmp_path / "m/data/kept").read_text() == "x"


@confined
async def test_a_strict_worker_opens_no_lock_of_ours(tmp_path: Path) -> None:
    """Or whoever changes keys, builds or downloads would wait for it."""
    with locks.locked(tmp_path / "lock"):
        pass
    async with started(tmp_path / "m", CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found:
        lines = [f"import os; os.open({str(tmp_path / 'lock')!r}, os.O_{how})" for how in ("RDONLY", "WRONLY", "RDWR")]
        assert all(error is not None for error in (await found.ask("attempt", lines)).values())


@confined
async def test_a_strict_worker_changes_nothing_about_files_outside(tmp_path: Path) -> None:
    """Neither by name nor by a descriptor that it may open, its standard input included."""
    file = write(tmp_path, {"outside": "x"}) / "outside"
    (file.parent / "link").symlink_to(file)
    before = file.stat()
    opened = f"import os; fd = os.open({str(file)!r}, os.O_RDONLY); "
    lines = [
        *(f"import os; os.{call}" for call in (
            f"chmod({str(file)!r}, 0o777)", f"chown({str(file)!r}, os.getuid(), os.getgid())",
            f"lchown({str(file.parent / 'link')!r}, os.getuid(), os.getgid())", f"utime({str(file)!r})",
            f"setxattr({str(file)!r}, 'user.x', b'')", "chmod('/dev/null', 0o666)", "fchmod(0, 0o666)",
            f"link({str(file)!r}, {str(file.parent / 'other')!r})", f"truncate({str(file)!r}, 0)",
        )),
        *(opened + call for call in (
            "os.fchmod(fd, 0o777)", "os.fchown(fd, os.getuid(), os.getgid())", "os.utime(fd)",
            "os.setxattr(fd, 'user.x', b'')", "os.chmod(f'/proc/self/fd/{fd}', 0o777)",
        )),
    ]  # fmt: skip
    async with started(tmp_path / "m", CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found:
        assert await found.ask("attempt", lines) == dict.fromkeys(lines, READ_ONLY)
    after = file.stat()
    assert (before.st_mode, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_mode,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


@confined
async def test_a_strict_worker_neither_writes_to_a_terminal_nor_changes_how_it_works(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    try:
        async with started(tmp_path / "m", CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found:
            opened = f"import os, fcntl, termios; fd = os.open({name!r}, os.O_RDONLY | os.O_NOCTTY); "
            lines = [f"open({name!r}, 'w')", f"{opened} fcntl.ioctl(fd, termios.TIOCSWINSZ, bytes(8))"]
            assert await found.ask("attempt", lines) == dict.fromkeys(lines, DENIED)
    finally:
        os.close(ours)
        os.close(theirs)


@confined
async def test_a_strict_worker_signals_nobody_and_changes_no_limit_of_others(tmp_path: Path) -> None:
    """This process plays the gateway; a worker beside it is one of its siblings."""
    async with (
        started(tmp_path / "other", CURIOUS, *METHODS) as sibling,
        started(tmp_path / "m", CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found,
    ):
        others = [os.getpid(), (await sibling.ask("look"))["pid"]]
        lines = [
            f"import os, resource, signal; {call}"
            for pid in others
            for call in (
                f"os.kill({pid}, 0)", f"os.killpg(os.getpgid({pid}), 0)",
                f"signal.pidfd_send_signal(os.pidfd_open({pid}), 0)",
                f"resource.prlimit({pid}, resource.RLIMIT_NOFILE, resource.prlimit({pid}, resource.RLIMIT_NOFILE))",
                f"os.setpriority(os.PRIO_PROCESS, {pid}, os.getpriority(os.PRIO_PROCESS, {pid}))",
                "os.setpriority(os.PRIO_USER, os.getuid(), 0)",
                f"os.sched_setscheduler({pid}, os.SCHED_OTHER, os.sched_param(0))",
            )
        ]  # fmt: skip
        lines.append(f"import os; os.sched_setaffinity({os.getpid()}, os.sched_getaffinity({os.getpid()}))")
        assert await found.ask("attempt", lines) == dict.fromkeys(lines, NOT_ALLOWED)
        own = [
            "import subprocess as s; p = s.Popen(['sleep', '60']); p.terminate(); assert p.wait() == -15",
            "import os; os.kill(os.getpid(), 0)",
            "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, r.getrlimit(r.RLIMIT_NOFILE))",
            "import os; os.nice(0); os.sched_setaffinity(0, os.sched_getaffinity(0))",
            "import threading as t; a = t.Thread(target=print); a.start(); a.join()",
            "import multiprocessing as m; assert m.get_context('fork').Pool(2).map(abs, [-1]) == [1]",
        ]
        assert await found.ask("attempt", own) == dict.fromkeys(own)


@confined
async def test_a_strict_worker_lets_nobody_wait_who_opens_a_file(tmp_path: Path) -> None:
    """A lease holds up everybody who opens the file until it is given up, which a minute may take."""
    (file := tmp_path / "keys.toml").touch()
    async with started(tmp_path / "m", CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found:
        lease = f"import fcntl; fcntl.fcntl(open({str(file)!r}), fcntl.F_SETLEASE, fcntl.F_WRLCK)"
        other = f"import fcntl; assert fcntl.fcntl(open({str(file)!r}), fcntl.F_GETFD) == fcntl.FD_CLOEXEC"
        assert await found.ask("attempt", [lease, other]) == {lease: NOT_ALLOWED, other: None}


@confined
async def test_a_strict_worker_reaches_into_no_other_process(tmp_path: Path) -> None:
    async with started(tmp_path / "m", CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found:
        place = f"/proc/{os.getpid()}"
        lines = [f"open('{place}/{name}', 'rb').read(1)" for name in ("environ", "mem", "maps")]
        lines += [f"import os; os.listdir('{place}/{name}')" for name in ("root", "cwd")]
        lines += [f"import os; os.readlink('{place}/fd/0')"]
        answers = await found.ask("attempt", lines)
        assert {name for name, _ in answers.values()} == {"PermissionError"}
        keys = (
            f"import ctypes; libc = ctypes.CDLL(None, use_errno=True); assert libc.syscall({KEYCTL}, 0, -3, 0) == -1; "
        )
        keys = [f"{keys} raise OSError(ctypes.get_errno(), '')"]
        assert await found.ask("attempt", keys) == dict.fromkeys(keys, NOT_ALLOWED), "the kernel's keys"


@confined
async def test_a_strict_worker_shares_no_memory_with_others(tmp_path: Path) -> None:
    from multiprocessing.shared_memory import SharedMemory

    ours = SharedMemory(create=True, size=16)
    try:
        async with started(tmp_path / "m", CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found:
            theirs = "from multiprocessing.shared_memory import SharedMemory as S; "
            lines = [f"{theirs} S({ours.name!r})", f"{theirs} s = S(create=True, size=16); s.close(); s.unlink()"]
            answers = await found.ask("attempt", lines)
            assert answers == {lines[0]: ["FileNotFoundError", "No such file or directory"], lines[1]: None}
    finally:
        ours.close()
        ours.unlink()


@confined
async def test_a_model_cannot_widen_its_sandbox_by_the_name_of_its_data(tmp_path: Path) -> None:
    named = f"data:{tmp_path}"  # a colon stands between the paths of a list
    for data_dir in ("/", "..", ".", "link", named):
        root = tmp_path / f"m{ord(data_dir[0])}{len(data_dir)}"
        root.mkdir()
        (root / named).mkdir(parents=True)
        (root / "link").symlink_to(tmp_path)
        spec = {"sandbox": "strict", "data_dir": root / data_dir, "allow_links": True}
        async with started(root, CURIOUS, *METHODS, spec=spec) as found:
            await refused(found, "write", str(tmp_path / "outside"), "Read-only file system")
            await refused(found, "write", str(root / "inside"), "Read-only file system")


@confined
async def test_a_strict_worker_reaches_no_network_but_itself(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as abstract:
        address = listener.getsockname()
        abstract.bind(f"\0{tmp_path}")
        abstract.listen()
        async with started(tmp_path, CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found:
            await refused(found, "connect", address, "ConnectionRefusedError")
            assert await found.ask("itself") == "connected"
            assert await found.ask("shell", "nsenter --net=/proc/1/ns/net true") != 0
            named = f"import socket; socket.socket(socket.AF_UNIX).connect('\\0{tmp_path}')"
            others = [f"import socket; socket.socket({family}, socket.SOCK_STREAM)" for family in (40, 38)]
            unknown = ["OSError", "Address family not supported by protocol"]
            answers = await found.ask("attempt", [named, *others])
            assert answers.pop(named), "an abstract socket"
            assert answers == dict.fromkeys(others, unknown), "of the machine that this one runs on, and of the kernel"
    async with started(tmp_path / "free", CURIOUS, *METHODS) as found:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            assert await found.ask("connect", listener.getsockname()) == "connected"


@confined
async def test_a_strict_worker_has_no_capabilities_and_still_dies_with_its_parent(tmp_path: Path) -> None:
    async with started(tmp_path, CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found:
        seen = await found.ask("look")
        assert int(seen["capabilities"], 16) == 0
        assert seen["parent_dies"] == 9
        assert seen["dumpable"] == 0
        assert seen["cwd"] == str(tmp_path)
        assert not [name for name in seen["environ"] if name.startswith("GW_") and name != "GW_WORKER"]
        assert await found.ask("shell", "unshare --user --map-root-user true") != 0, "and gets none"


FIRST = """
    import os, sys
    sys.played = os.environ.get("PYTHONPATH")
    try: open({outside!r}, "w").write("x")
    except OSError: pass
"""


@confined
async def test_no_variable_of_a_strict_model_counts_before_it_is_confined(tmp_path: Path) -> None:
    """Python's and the loader's own run code in whatever is started. Here even those that only an operator may set."""
    outside = tmp_path / "outside"
    write(tmp_path / "m/first", {"sitecustomize.py": FIRST.format(outside=str(outside))})
    path = os.pathsep.join(filter(None, (str(tmp_path / "m/first"), os.environ.get("PYTHONPATH"))))
    variables = {"PYTHONPATH": path, "GW_SANDBOX": "basic", "GW_WRITABLE_0": "/"}
    spec = {"sandbox": "strict", "environment": variables}
    async with started(tmp_path / "m", CURIOUS, *METHODS, spec=spec) as found:
        assert (await found.ask("look"))["played"] == path, "it has run, but confined"
    assert not outside.exists()


EARLY = """
import ctypes, os, resource, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
sys.played = [status["NoNewPrivs"].strip(), resource.getrlimit(resource.RLIMIT_CORE)[1],
              open("/proc/self/oom_score_adj").read().strip()]
"""


async def test_nothing_in_the_environment_of_any_model_runs_before_it_has_given_up_what_no_worker_needs(
    tmp_path: Path,
) -> None:
    """What it starts there and lets go would be like a command of the operator's, who may do everything."""
    home = tmp_path / "env"
    venv.create(home)
    site = next((home / "lib").glob("python*/site-packages"))
    write(site, {"first.pth": f"import sys; sys.path.insert(0, {str(site)!r}); import first\n", "first.py": EARLY})
    own = [str(Path(gateway.__file__).parents[1]), *(path for path in sys.path if path.endswith("site-packages"))]
    spec = {"python": str(home / "bin/python"), "environment": {"PYTHONPATH": os.pathsep.join(own)}}
    async with started(tmp_path / "m", CURIOUS, *METHODS, spec=spec) as found:
        assert (await found.ask("look"))["played"] == ["1", 0, "500"]


@confined
async def test_nothing_in_the_environment_of_a_strict_model_runs_before_it_is_confined(tmp_path: Path) -> None:
    """A wheel may bring files that Python runs at its start, and may take the place of the interpreter itself."""
    outside = tmp_path / "outside"
    home = tmp_path / "env"
    venv.create(home)
    site = next((home / "lib").glob("python*/site-packages"))
    write(site, {"first.pth": f"import sys; sys.path.insert(0, {str(site)!r}); import first\n"})
    write(site, {"first.py": FIRST.format(outside=str(outside))})
    real = (home / "bin/python").resolve()
    python = home / "bin/python"
    python.rename(home / "bin/real")
    python.write_text(f'#!/bin/sh\necho x > {outside} || echo kept out\nexec {home}/bin/real "$@"\n')
    python.chmod(0o755)
    assert real.is_file()
    own = [str(Path(gateway.__file__).parents[1]), *(path for path in sys.path if path.endswith("site-packages"))]
    spec = {"sandbox": "strict", "python": str(python), "environment": {"PYTHONPATH": os.pathsep.join(own)}}
    async with started(tmp_path / "m", CURIOUS, *METHODS, spec=spec) as found:
        assert (await found.ask("look"))["played"], "the file of the environment was run, but confined"
        assert "kept out" in found.log.lines
    assert not outside.exists()


async def test_an_empty_entry_of_a_search_path_is_not_the_directory_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A common slip, as in LD_LIBRARY_PATH=$LD_LIBRARY_PATH:/usr/lib; a loader takes it for where it is started."""
    monkeypatch.setenv("LD_LIBRARY_PATH", ":/usr/lib:lib")
    monkeypatch.setenv("PYTHONPATH", f":plugins:{os.environ.get('PYTHONPATH', '')}")
    async with started(tmp_path, CURIOUS, *METHODS) as found:
        seen = (await found.ask("look"))["environ"]
        assert seen["LD_LIBRARY_PATH"] == f"/usr/lib{os.pathsep}{Path.cwd() / 'lib'}"
        assert seen["PYTHONPATH"].startswith(f"{Path.cwd() / 'plugins'}")


async def test_a_worker_and_what_it_starts_have_the_nice_value_of_their_model(tmp_path: Path) -> None:
    source = """
        import os, subprocess, sys
        class Model:
            def predict(self, x):
                command = [sys.executable, "-c", "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"]
                return [os.getpriority(os.PRIO_PROCESS, 0), int(subprocess.check_output(command))]
        """
    own = os.getpriority(os.PRIO_PROCESS, 0)
    for nice, sandbox in ((0, "basic"), (3, "basic"), (3, "strict")):
        async with started(tmp_path / f"{sandbox}{nice}", source, spec={"nice": nice, "sandbox": sandbox}) as found:
            assert await found.ask("predict") == [own + nice] * 2
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


async def test_a_model_over_its_memory_limit_fails_that_call_and_its_worker_goes_on(tmp_path: Path) -> None:
    async with started(tmp_path, CURIOUS, *METHODS, spec={"memory_limit": 512 * 1024**2}) as found:
        before = resident(os.getpid())
        with pytest.raises(GatewayError) as caught:
            await found.ask("allocate", 1024**3)
        assert caught.value.status >= 500
        await found.log.find("MemoryError")
        assert await found.ask("allocate", 1024**2) == 1024**2
        assert resident(os.getpid()) - before < 16 * 1024**2


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_a_worker_ends_though_it_leaves_directories_deeper_than_anybody_recurses(tmp_path: Path) -> None:
    source = """
        import os, tempfile

        class Model:
            def predict(self, depth):
                place = tempfile.gettempdir()
                os.chdir(place)
                for _ in range(depth): os.mkdir("d"); os.chdir("d")
                return place
        """
    async with started(tmp_path, source) as found:
        place = await found.ask("predict", 3000)
    assert await asyncio.to_thread(clearing.wait, 60)
    assert not is_there(place)


def is_there(path: str) -> bool:
    return Path(path).exists()


# What it takes, asked without any code of ours: Landlock's version, and namespaces as root or of a user.
HAS_ALL = """
import ctypes, platform, sys
libc = ctypes.CDLL(None)
namespaces = 0x20000 | 0x8000000 | 0x40000000
may = libc.unshare(namespaces) == 0 or libc.unshare(namespaces | 0x10000000) == 0
is_known = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
print(is_known and libc.syscall(444, None, 0, 1) >= 6 and may)
"""


def test_a_machine_that_has_all_that_it_takes_confines() -> None:
    """Or a fault of ours would pass for a poor machine, here and in every test that then sees a refusal."""
    done = subprocess.run([sys.executable, "-c", HAS_ALL], capture_output=True, text=True, timeout=60)
    assert (done.stdout == "True\n") == (why_not() == ""), why_not()


# What a machine may lack, played by a process that does what a worker does first.
POOR = """
import sys
from pathlib import Path
from gateway.worker.sandbox import calls as sandbox_calls, confine as sandbox
from gateway.worker.sandbox import landlock as sandbox_landlock, namespaces as sandbox_namespaces
def fail(*a, **k): raise OSError(1, "no")
{change}
sandbox.limit_accidents()
try:
    sandbox.confine([Path(".")])
except sandbox.Unconfined as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("sandbox_landlock.version = lambda: 0", "Landlock of version 6, as Linux 6.12 has it, and has none"),
        ("sandbox_landlock.version = lambda: 5", "has version 5"),
        ("sandbox_landlock.version = lambda: 6; sandbox.limit_accidents(); sandbox._lay_down_capabilities(); "
         "sandbox_calls.install()", "allows no namespaces here (Operation not permitted)"),
        ("sandbox_landlock.version = lambda: 6; sandbox_namespaces.enter = fail", "allows no namespaces here (no)"),
        ("sandbox_landlock.version = lambda: 6; sandbox_namespaces.enter = lambda *a, **k: None; "
         "sandbox._lay_down_capabilities = fail", "the capabilities cannot be dropped (no)"),
        ("sandbox_landlock.version = lambda: 6; sandbox_namespaces.enter = lambda *a, **k: None; "
         "sandbox_landlock.restrict = fail", "refused its rules (no)"),
        ("sandbox_landlock.version = lambda: 6; sandbox_namespaces.enter = lambda *a, **k: None; "
         "sandbox_landlock.restrict = lambda *a: None; sandbox_calls.platform.machine = lambda: 'pdp11'",
         "does not accept the system call filter (the system call numbers of pdp11 are not known)"),
        ("sys.platform = 'darwin'", "it needs Linux"),
    ],
)  # fmt: skip
def test_a_machine_that_cannot_confine_says_what_it_lacks(change: str, reason: str) -> None:
    code = POOR.format(change=change)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert reason in done.stdout, done.stderr


async def test_without_the_sandbox_that_was_asked_for_the_model_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker comes up with a kernel whose Landlock holds back no signals, and nothing of the model's is run."""
    poor = f"""
        import sys
        sys.path.insert(0, {str(Path(gateway.__file__).parents[1])!r})
        from gateway.worker.sandbox import landlock as sandbox_landlock, start as sandbox_start
        sandbox_landlock.version = lambda: 5
        sandbox_start.main(sys.argv[1:])
        """
    write(tmp_path, {"poor.py": poor})
    monkeypatch.setattr(confinement, "PROGRAM", tmp_path / "poor.py")
    root = write(
        tmp_path / "m",
        {
            "model/model.py": "open('ran', 'w')\nclass Model:\n    def predict(self, x): return x",
            "first/sitecustomize.py": f"open({str(tmp_path / 'm/ran')!r}, 'w')",
        },
    )
    found = Started(root, spec={"sandbox": "strict", "environment": {"PYTHONPATH": str(root / "first")}})
    with pytest.raises(LoadError, match='sandbox = "strict" is not available: the kernel needs Landlock') as caught:
        await found.replica.start()
    assert caught.value.fatal
    assert not (root / "ran").exists()


def test_the_settings_reach_the_spec(tmp_path: Path) -> None:
    from gateway.directories.discovery import discover
    from gateway.plugins import Plugins
    from gateway.settings.load import load_settings

    write(tmp_path, {"models/a/model.py": "class Model: ...", "models/b/model.py": "class Model: ..."})
    (tmp_path / "gateway.toml").write_text(
        '[gateway.worker]\nsandbox = "strict"\n[models.b]\nsandbox = "basic"\nmemory_limit = "1GiB"\nnice = 5\n'
    )
    settings = load_settings(tmp_path / "gateway.toml", environ={})
    found = {spec.name: spec for spec in discover([tmp_path / "models"], Plugins.load(), settings).specs}
    assert (found["a"].sandbox, found["a"].memory_limit) == ("strict", None)
    assert (found["b"].sandbox, found["b"].memory_limit) == ("basic", 1024**3)
    assert (found["a"].nice, found["b"].nice) == (0, 5)
