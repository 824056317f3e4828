"""Which process of a run this is: said by flags, or by the variables of whoever started it.

Nothing is connected and JAX is not started here. What says "more than one" and does not say how to
meet is refused: training alone in each of them would write one directory several times.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from deit_jax.scale import tpu
from deit_jax.scale.place import DEFAULT_PORT, ProcessPlace, read_address

Variables = Mapping[str, str]

_FLAGS: Final = "--coordinator=HOST:PORT --processes=N --process=I"
_ALONE: Final = "--processes=1 to train in this process alone"
# Ports for a job that was given none: those that JAX itself would take.
_FIRST_PORT, _PORTS = 65536 - 4096, 4096
# Launchers that tell how many there are and not where they meet: count and index.
_UNKNOWN: Final = {
    "PMI_SIZE": "PMI_RANK",
    "WORLD_SIZE": "RANK",
    "MV2_COMM_WORLD_SIZE": "MV2_COMM_WORLD_RANK",
}


@dataclass(frozen=True)
class Told:
    """What a scheduler's variables say; `host` is "" where they do not."""

    by: str
    count: int
    index: int
    host: str = ""
    port: int = DEFAULT_PORT
    machines: int = 0


@dataclass(frozen=True)
class Given:
    """What the flags say; "" and None are for the variables to fill in.

    Attributes:
        coordinator: HOST:PORT of process 0.
        processes: how many there are.
        process: index of this one, from 0.
    """

    coordinator: str = ""
    processes: int | None = None
    process: int | None = None


def find_place(environ: Variables, given: Given = Given()) -> ProcessPlace | None:
    """Return where this process stands, or None where it is the only one of its run.

    Flags go before JAX's variables (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID, for
    which in an indexed Kubernetes Job JOB_COMPLETION_INDEX does), and these before a scheduler's.

    Raises:
        ValueError: there are several, and they cannot meet or contradict each other.
    """
    address = given.coordinator or environ.get("JAX_COORDINATOR_ADDRESS", "")
    count = _either(given.processes, environ, "JAX_NUM_PROCESSES")
    index = _either(given.process, environ, "JAX_PROCESS_ID")
    if count == 1:
        if index:
            raise ValueError(f"This is process {index} of one, counted from 0: that cannot be.")
        return None
    if index is None and (address or count) and "JOB_COMPLETION_INDEX" in environ:
        index = number(environ, "JOB_COMPLETION_INDEX")
    if count is not None and count < 1:
        raise ValueError(f"There cannot be {count} processes; give --processes=N, at least 1.")
    if address and count and index is not None:
        host, port = read_address(address)
        return ProcessPlace(count, index, host, port, "the command line or JAX's variables")
    told = next((found for ask in _SCHEDULERS if (found := ask(environ))), None)
    if told is None:
        _require_nothing_given(address, count, index)
        return None
    if count not in (None, told.count) or index not in (None, told.index):
        raise ValueError(
            f"{told.by} says that this is process {told.index} of {told.count}, the command line "
            f"or JAX's variables say {'I' if index is None else index} of {count or 'N'}; give all "
            f"of {_FLAGS}, or none."
        )
    if told.count == 1:
        if address:
            raise ValueError(
                f"{told.by} says that this is the only process, and {address} is for several to "
                f"meet; give all of {_FLAGS}, or none."
            )
        return None
    host, port = read_address(address) if address else (told.host, told.port)
    if not host:
        raise ValueError(
            f"{told.by} says that this is process {told.index} of {told.count}, but not where they "
            "can meet; give --coordinator=HOST:PORT, on the machine of process 0."
        )
    return ProcessPlace(told.count, told.index, host, port, told.by, told.machines)


def _require_nothing_given(address: str, count: int | None, index: int | None) -> None:
    """Refuse what is given in part, there being no scheduler that says the rest."""
    missing = [
        flag
        for flag, value in zip(_FLAGS.split(), (address, count, index), strict=True)
        if value in ("", None)
    ]
    if len(missing) < 3:
        raise ValueError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, and no "
            "scheduler's variables say it; several processes need all of "
            f"{_FLAGS}."
        )


def _slurm(environ: Variables) -> Told | None:
    """Read what `srun` sets for each task, or what `sbatch` and `salloc` set for their shell."""
    if not environ.get("SLURM_JOB_ID"):
        return None
    nodes = environ.get("SLURM_STEP_NODELIST", "")
    if not nodes or "SLURM_PROCID" not in environ:
        tasks = max(number(environ, name, 1) for name in ("SLURM_NTASKS", "SLURM_JOB_NUM_NODES"))
        if tasks > 1:
            raise ValueError(
                f"This SLURM job has {tasks} tasks or nodes, but srun has not started this "
                f"process; put srun before the command, or give {_ALONE}."
            )
        return None
    counted = next((n for n in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS") if n in environ), "")
    port = number(environ, "JAX_COORDINATOR_PORT", 0) or _port(environ["SLURM_JOB_ID"])
    return Told(
        "SLURM",
        number(environ, counted, 1),
        number(environ, "SLURM_PROCID"),
        first_host(nodes),
        port,
        number(environ, "SLURM_STEP_NUM_NODES", 0),
    )


def _open_mpi(environ: Variables) -> Told | None:
    """Read what `mpirun` of Open MPI sets."""
    if "OMPI_COMM_WORLD_SIZE" not in environ:
        return None
    count = number(environ, "OMPI_COMM_WORLD_SIZE")
    here = number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE", 0)
    # Up to version 4 the address of mpirun, which starts process 0 beside itself.
    launcher = environ.get("OMPI_MCA_orte_hnp_uri", "")
    found = re.search(r"tcp6?://(?:\[([^\],]+)|([^,:\]]+))", launcher)
    job = launcher.split(".")[0] or environ.get("PMIX_NAMESPACE", "")
    host = "127.0.0.1" if here == count else (found[1] or found[2]) if found else ""
    if not host and environ.get("SLURM_JOB_NODELIST"):
        host = first_host(environ["SLURM_JOB_NODELIST"])
    return Told(
        "Open MPI",
        count,
        number(environ, "OMPI_COMM_WORLD_RANK"),
        host,
        number(environ, "JAX_COORDINATOR_PORT", 0) or _port(job),
        1 if here == count else 2,
    )


def _tpu(environ: Variables) -> Told | None:
    """Read what a pod of TPUs says of its hosts."""
    pod = tpu.read_pod(environ)
    if pod is None:
        return None
    return Told("The TPU pod", pod.count, pod.index, pod.host, machines=pod.count)


def _unknown(environ: Variables) -> Told | None:
    """Refuse variables of launchers that do not say where to meet."""
    for size, rank in _UNKNOWN.items():
        if environ.get(size, "").isdecimal() and int(environ[size]) > 1:
            raise ValueError(
                f"{size} says that there are {environ[size]} processes, but not where they can "
                f"meet; give {_FLAGS}, I being {rank}, or {_ALONE}."
            )
    return None


# Where mpirun was started by SLURM, its own variables say more; and some of SLURM's ways of
# starting set those of PMI.
_SCHEDULERS: Final[tuple[Callable[[Variables], Told | None], ...]] = (
    _open_mpi,
    _slurm,
    _tpu,
    _unknown,
)


def first_host(nodes: str) -> str:
    """Return the first of SLURM's list of nodes, such as "gpu[003-007,12],login"."""
    # Commas inside of brackets do not end it.
    first = re.search(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0] if first else nodes)


def number(environ: Variables, name: str, default: int | None = None) -> int:
    """Return a variable that is a number.

    Raises:
        ValueError: it is none, or not there and there is no default.
    """
    text = environ.get(name, "")
    if not text and default is not None:
        return default
    if not text.isdecimal():
        raise ValueError(f"The variable {name} is {text!r} where a number of processes should be.")
    return int(text)


def _either(flag: int | None, environ: Variables, name: str) -> int | None:
    if flag is not None:
        return flag
    return number(environ, name) if environ.get(name) else None


def _port(job: str) -> int:
    """Return a port that all processes of a job find, and jobs beside it most likely do not."""
    value = int(job) if job.isdecimal() else zlib.crc32(job.encode())
    return _FIRST_PORT + value % _PORTS
