"""Runs of five steps whose teacher's labels are kept; what of them tests compare."""

import jax

from configs.digits import get_config
from deit_jax.runs.fingerprint import digest
from deit_jax.sharding import put_batch, replicated
from deit_jax.training import setup as setups
from tests.config.reduced import reduce

STEPS, BATCH = 5, 32


def configure(folder, kind="hard", labels="", **changes):
    config = reduce(get_config(kind), folder)
    config.training.batch_size = BATCH
    config.evaluation.batch_size = 400
    config.schedule.epochs = STEPS * BATCH / 597
    config.checkpoint.every_steps = 2
    config.teacher.labels = str(folder / labels) if labels else ""
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def run(config, stop=STEPS):
    """Take the steps as train.py does; return their digest, loss and the record of the labels."""
    setup = setups.set_up(config)
    state, lessons = setup.initial_state(), setup.lessons
    params = setup.teacher.params if setup.teacher else {}
    teacher = {} if lessons else jax.device_put(params, replicated(setup.mesh))
    with setup.train_batches(0, ()) as batches:
        for step in range(stop):
            batch = put_batch(next(batches), setup.mesh)
            if lessons:
                state = lessons.take(step, state, batch)
            else:
                state = setup.train_step(state, teacher, batch)
    if lessons:
        lessons.save()
    loss = float(state["sums"]["loss"])
    bits = digest({name: state[name] for name in ("params", "batch_stats", "ema")})
    return bits, loss, lessons.record if lessons else None


def refuse_loading(*_):
    raise AssertionError("the teacher was loaded")
