"""Which process this is, from dictionaries of variables as schedulers set them."""

import pytest

from deit_jax.scale.detection import Given, find_place, first_host
from deit_jax.scale.place import Beside, ProcessPlace, read_address, share_of_gpus, visible_gpus

# As srun sets them for the second of four tasks on two nodes (SLURM's manual, srun(1)).
SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
}
# In the script of `sbatch --ntasks=4`, and in the shell of `salloc`, before any srun.
BATCH = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "4", "SLURM_JOB_NODELIST": "gpu[007-008]"}
# Open MPI 4 on two hosts; version 5 does not tell the address of mpirun.
MPIRUN = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
MPIRUN_5 = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_NAMESPACE": "prterun-host-77@1",
}
JAX = {
    "JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
}
JOBSET = {
    "KUBERNETES_SERVICE_HOST": "10.1.0.1",
    "JAX_COORDINATOR_ADDRESS": "run-workers-0-0.run:8476",
    "JAX_NUM_PROCESSES": "2",
    "JOB_COMPLETION_INDEX": "1",
}
GKE = {
    "TPU_WORKER_HOSTNAMES": "a-0.pods,a-1.pods",
    "TPU_WORKER_ID": "1",
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "first-0.pods:8080",
}


def place(environ, *given):
    found = find_place(environ, Given(*given))
    return found and (found.count, found.index, found.host, found.port)


def test_schedulers_say_how_many_which_and_where():
    # Ports are those that JAX derives from the numbers of jobs (jax/_src/clusters).
    assert place(SRUN) == (4, 1, "gpu007", 65535 - 2**12 + 1 + 4711 % 2**12)
    assert place(MPIRUN)[:3] == (4, 2, "10.96.0.1")
    assert place(MPIRUN_5)[:3] == (2, 1, "127.0.0.1")
    assert place(JAX) == (2, 1, "10.0.0.1", 1234)
    assert place(JOBSET) == (2, 1, "run-workers-0-0.run", 8476)
    assert place(GKE)[:3] == (4, 3, "first-0.pods")


def test_flags_go_before_variables_and_fill_what_a_scheduler_does_not_say():
    assert place({}, "h:1", 3, 0) == (3, 0, "h", 1)
    assert place(SRUN, "h:1", 3, 0) == (3, 0, "h", 1)
    assert place(SRUN, "10.1.1.1:5") == (4, 1, "10.1.1.1", 5)
    assert place(JAX, "h:1") == (2, 1, "h", 1)
    unknown = {**MPIRUN, "OMPI_MCA_orte_hnp_uri": ""}
    assert place({**unknown, "SLURM_JOB_NODELIST": "n[3,5]"})[2] == "n3"
    assert place(unknown, "n9")[2:] == ("n9", 8476)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        # One task; the shell of an allocation of one; a step that is a shell (`srun --pty bash`,
        # or salloc's interactive step) inside a larger job.
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1"},
        {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_ARRAY_TASK_ID": "3"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
        # Runs of their own, as a sweep over the indices of a Job.
        {"KUBERNETES_SERVICE_HOST": "10.1.0.1", "JOB_COMPLETION_INDEX": "5"},
        {**GKE, "JAX_PLATFORMS": "cpu"},
    ],
)
def test_one_process_is_an_ordinary_run(environ):
    assert place(environ) is None


@pytest.mark.parametrize("environ", [BATCH, SRUN, {"WORLD_SIZE": "4", "RANK": "2"}])
def test_the_user_may_say_that_it_is_alone(environ):
    assert place(environ, "", 1) is None


@pytest.mark.parametrize(
    "environ, given, words",
    [
        (BATCH, (), "4 tasks or nodes, but srun has not started"),
        ({"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2"}, (), "srun"),
        ({**SRUN, "SLURM_PROCID": "4"}, (), "process 4 of 4"),
        ({**SRUN, "SLURM_PROCID": "x"}, (), "SLURM_PROCID is 'x'"),
        ({**MPIRUN, "OMPI_MCA_orte_hnp_uri": ""}, (), "not where they can meet"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, (), "OMPI_COMM_WORLD_RANK"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, (), "I being RANK"),
        ({"PMI_SIZE": "2", "PMI_RANK": "0"}, (), "I being PMI_RANK"),
        ({"MV2_COMM_WORLD_SIZE": "2"}, (), "I being MV2_COMM_WORLD_RANK"),
        ({"JAX_COORDINATOR_ADDRESS": "h:1"}, (), "--processes=N and --process=I are missing"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, (), "--coordinator=HOST:PORT is mis"),
        ({}, ("", 2, 0), "--coordinator=HOST:PORT is missing"),
        ({}, ("h:1", 2, 2), "process 2 of 2"),
        ({}, ("h:99999", 2, 0), "HOST:PORT"),
        ({}, ("", 1, 1), "process 1 of one"),
        (SRUN, ("", 8), "SLURM says that this is process 1 of 4"),
        ({**GKE, "TPU_WORKER_ID": "2"}, (), "host 2 of a TPU slice of 2"),
    ],
)
def test_what_cannot_be_joined_is_refused_in_a_sentence(environ, given, words):
    with pytest.raises(ValueError) as refused:
        find_place(environ, Given(*given))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "nodes, first",
    [
        ("node001", "node001"),
        ("node001,host2", "node001"),
        ("node[001-0015],host2", "node001"),
        ("node[001,007-015],host2", "node001"),
        ("rack[2-3]node[10,12]", "rack2node10"),
        ("a-b[7]", "a-b7"),
    ],
)
def test_the_first_node(nodes, first):
    assert first_host(nodes) == first


def test_addresses():
    assert read_address("[fe80::1]:70") == ("fe80::1", 70)
    assert ProcessPlace(2, 0, "fe80::1", 70, "").address == "[fe80::1]:70"
    assert read_address("10.0.0.1") == ("10.0.0.1", 8476)
    for wrong in ("", "a:b", "http://a:1", "a b:1", "fe80::1"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            read_address(wrong)


def test_gpus_are_divided_among_the_processes_of_a_machine(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == 2
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3,GPU-1,MIG-2"}, tmp_path) == 3
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == 0

    def shares(count, gpus, **environ):
        return [share_of_gpus(Beside(i, count), environ, gpus) for i in range(count)]

    assert [list(share) for share in shares(2, 8)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [list(share) for share in shares(2, 2)] == [[0], [1]]
    # Alone, without, bound by the scheduler, told, or not on GPUs.
    assert shares(1, 8) == [None]
    assert shares(2, 0) == shares(2, 1) == [None, None]
    assert shares(2, 8, SLURM_GPUS_PER_TASK="4") == [None, None]
    assert shares(2, 8, JAX_LOCAL_DEVICE_IDS="0") == [None, None]
    assert shares(2, 8, JAX_PLATFORMS="cpu") == [None, None]
    with pytest.raises(ValueError, match="3 GPUs do not divide among the 2 processes"):
        shares(2, 3)
