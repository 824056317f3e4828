"""The ready files for SLURM and Kubernetes: they parse, and say what the program looks for."""

import re
import subprocess
from pathlib import Path

import pytest

from deit_jax.scale.detection import Given, find_place
from deit_jax.scale.failure import LOST_CODE

CLUSTER = Path(__file__).parents[2] / "cluster"


def test_the_variables_of_the_jobset_are_those_that_are_detected():
    yaml = pytest.importorskip("yaml")
    jobset = yaml.safe_load((CLUSTER / "jobset.yaml").read_text())
    (workers,) = jobset["spec"]["replicatedJobs"]
    coordinator = jobset["spec"]["coordinator"]
    assert coordinator == {"replicatedJob": workers["name"], "jobIndex": 0, "podIndex": 0}
    job = workers["template"]["spec"]
    assert job["completionMode"] == "Indexed" and workers["replicas"] == 1
    (container,) = job["template"]["spec"]["containers"]
    variables = {entry["name"]: entry for entry in container["env"]}
    field = variables["COORDINATOR"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['jobset.sigs.k8s.io/coordinator']"
    # What Kubernetes makes of it in the second pod.
    address = variables["JAX_COORDINATOR_ADDRESS"]["value"]
    environ = {
        "JAX_COORDINATOR_ADDRESS": address.replace("$(COORDINATOR)", "deit-workers-0-0.deit"),
        "JAX_NUM_PROCESSES": variables["JAX_NUM_PROCESSES"]["value"],
        "JOB_COMPLETION_INDEX": "1",
    }
    place = find_place(environ, Given())
    assert (place.count, place.index) == (job["parallelism"], 1)
    assert (place.host, place.port) == ("deit-workers-0-0.deit", 8476)
    assert job["parallelism"] == job["completions"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [2, 3] and LOST_CODE not in (2, 3)
    assert rule["onExitCodes"]["containerName"] == container["name"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["template"]["spec"]["volumes"]}


@pytest.mark.parametrize(
    "code, restarts, requeued",
    [(0, 0, False), (2, 0, False), (3, 0, False), (1, 0, False)]
    + [(code, 0, True) for code in (LOST_CODE, 137, 134, 143, 138, 140)]
    + [(143, 50, False)],
)
def test_the_slurm_script_comes_back_after_what_another_start_can_mend(
    tmp_path, code, restarts, requeued
):
    script = CLUSTER / "slurm.sh"
    for name, line in (("srun", f'echo "$@"; exit {code}'), ("scontrol", f"echo $* >{tmp_path}/q")):
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_JOB_ID": "7",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    ended = subprocess.run(
        ["bash", script, "--config", "a b"], env=environment, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (code, "")
    assert ended.stdout == "--wait=120 python train.py --config a b\n"
    queued = tmp_path / "q"
    assert queued.exists() == requeued
    assert not requeued or queued.read_text() == "requeue 7\n"


def test_the_slurm_script_asks_for_a_signal_that_runs_answer():
    lines = re.findall(r"^#SBATCH (.*)$", (CLUSTER / "slurm.sh").read_text(), re.M)
    assert "--requeue" in lines and "--signal=TERM@180" in lines
