"""`train`: start, resume or return the run of an experiment."""

import contextlib
from collections.abc import Iterator

from mixlab import devices, ranks
from mixlab.config import digest
from mixlab.data.catalogue import check_outside
from mixlab.data.data_set import DataSet
from mixlab.errors import DataError, Interrupted, TrainingError, UsageError, WorkerLost
from mixlab.evaluation import inference
from mixlab.experiment import Experiment
from mixlab.kernels import choice
from mixlab.ranks import Ranks
from mixlab.run import own_data, timing
from mixlab.run.folder import Request, Run, open_run
from mixlab.training import changes, lr_files, tensorboard
from mixlab.training.changes import Seen
from mixlab.training.finish import finish
from mixlab.training.guard import GoBack
from mixlab.training.loop import save, train_to_end
from mixlab.training.lr_range import RangeTest, Sweep, measure
from mixlab.training.memory import fit_parts
from mixlab.training.plan import Plan, duration, resolve, settle
from mixlab.training.prepare import check_data, check_same_data, hold, note_changes, report_unreadable
from mixlab.training.progress import Screen
from mixlab.training.session import Options, Session
from mixlab.training.signals import StopSignals
from mixlab.training.start import state_to_go_on_from
from mixlab.training.state import TrainState

LATE = 1.2  # times what a training may take, from which on it says so


def train(experiment: Experiment, options: Options) -> Run:
    """Start the run of an experiment, go on with it, or return it where it is finished.

    Raises:
        RunError: where the run's folder cannot be used.
        DataError: where the data cannot be used.
        UsageError: where the run would lie in the folder of the data.
        TrainingError: where the loss is no longer finite.
        Interrupted: where a signal asked to stop; everything is saved.
        WorkerLost: where a process that decodes has died or is frozen; everything is saved.
    """
    if options.tensorboard:
        tensorboard.require()
    with ranks.joined() as together:
        opened = together.led(lambda: open_folder(experiment, options))
        together.led(lambda: changes.refuse_other_weights(opened, experiment.weights))
        try:
            return resume(opened, options)
        except (DataError, UsageError):
            if together.leads:
                opened.remove_unless_begun()
            raise


def open_folder(experiment: Experiment, options: Options) -> Run:
    """Return the run that `train` trains into, with nothing but its request where it is new.

    Raises:
        UsageError: where it would lie in the folder of the data.
        RunError: where the folder cannot be used.
    """
    check_outside(experiment.data, options.out)
    return open_run(_request(experiment, options), folder_name(experiment, options), options.out, options.new)


def folder_name(experiment: Experiment, options: Options) -> str:
    """Return the name of the folder that `train` trains into."""
    return options.name or default_name(_request(experiment, options))


def resume(run: Run, options: Options, data: str = "") -> Run:
    """Go on with a run, with no more than its folder; raises as `train`.

    Args:
        data: where the data of the run lies from now on, where it was moved.
    """
    with ranks.joined() as together, contextlib.ExitStack() as held:
        together.led(lambda: held.enter_context(run.lock()))
        if data:
            together.led(lambda: changes.move_data(run, data))
        if options.strict:
            together.led(lambda: changes.refuse_unreadable(run))
        request, is_finished = together.led(lambda: (run.request, run.is_finished))
        if not is_finished:
            if options.tensorboard:
                tensorboard.require()
            screen = Screen(run.log, options.quiet) if together.leads else Screen(None, quiet=True)
            exactly = devices.deterministic(devices.choose_device(options.device))
            with screen, _explained(request.experiment, run), exactly:
                _train(run, request, options, screen, together)
        together.wait()  # for the leader: what follows may read the finished run
    return run


@contextlib.contextmanager
def _explained(experiment: Experiment, run: Run | None = None) -> Iterator[None]:
    """Say what to do where memory ran out, BatchNorm has nothing to average, or somebody asked to stop."""
    try:
        yield
    except KeyboardInterrupt:  # before the first step or after the last, when nothing is lost
        if run is None or not run.has_begun:
            raise
        raise Interrupted(f"interrupted; go on with: mixlab train --resume {run.quoted}") from None
    except (RuntimeError, ValueError, MemoryError) as error:
        if run is not None and run.has_begun:
            experiment = run.experiment  # with the parts that were found
        parts = experiment.parts * 2
        if devices.is_out_of_memory(error):
            raise TrainingError(
                f"out of memory at batch {experiment.batch_size} on this device. "
                f"Try --batch-size {max(experiment.batch_size // 2, 1)}, or --accumulate {parts} "
                f"(the same optimiser batch; BatchNorm then sees {experiment.batch_size // parts})"
            ) from None
        if "Expected more than 1 value per channel" in str(error):
            raise TrainingError(
                f"BatchNorm cannot average one value: batch_size={experiment.batch_size} in "
                f"{experiment.parts} parts is too small for this model; give more images to a part"
            ) from None
        raise


def plan(experiment: Experiment, options: Options, processes: int = 1) -> Plan:
    """Return what `train` would do in so many processes; writes nothing. Raises as `train`."""
    device = devices.choose_device(options.device)
    data = experiment.load_data()
    check_data(data, experiment)
    steps = Sweep().steps if options.auto_learning_rate else 0
    with devices.deterministic(device), _explained(experiment):
        experiment = _in_parts(experiment, Ranks(world=processes))
        return resolve(experiment, data, device, options.max_seconds, options.workers, steps, processes)[1]


def find_learning_rate(experiment: Experiment, options: Options, sweep: Sweep) -> RangeTest:
    """Return the range test of an experiment; writes nothing.

    Raises:
        UsageError: where the rates would not rise.
        MixlabError: as `train`.
    """
    sweep.rates(experiment.optimizer)  # refuse before anything is read
    device = devices.choose_device(options.device)
    data = experiment.load_data()
    check_data(data, experiment)
    with devices.deterministic(device), Screen(None, options.quiet) as screen, _explained(experiment):
        screen.say([f"note     {note}" for note in data.notes])
        data = hold(data, device, options, screen)
        found = measure(
            fit_parts(settle(experiment, device), data, device), data, device, options.workers, sweep, screen
        )
        if data.train.unreadable:
            screen.say(
                f"skipped  {len(data.train.unreadable)} files that cannot be read (mixlab data check names them)"
            )
    return found


def _request(experiment: Experiment, options: Options) -> Request:
    return Request(
        experiment=experiment, max_seconds=options.max_seconds, auto_learning_rate=options.auto_learning_rate
    )


def default_name(request: Request) -> str:
    """Return the name of a request's folder, such as digits-convmixer_64_4-1a2b3c4d."""
    experiment = request.experiment
    limit = f"-{request.max_seconds:g}s" if request.max_seconds else ""
    auto = "-auto_lr" if request.auto_learning_rate else ""
    return f"{lr_files.label(experiment)}{limit}{auto}-{digest(experiment)}"


def _train(run: Run, asked: Request, options: Options, screen: Screen, together: Ranks) -> None:
    device = devices.choose_device(options.device)
    # only the leader knows the run's folder, which may lie on another host
    data = own_data.load(run) if together.leads else asked.experiment.load_data()
    check_data(data, asked.experiment)
    screen.say([f"note     {note}" for note in data.notes])
    seen = changes.look(data)
    check_same_data(seen.fingerprint, together)
    screen.say([f"note     {note}" for note in together.led(lambda: changes.refuse_changes(run, seen))])
    data = hold(data, device, options, screen)
    experiment = together.led(lambda: _resolve(run, options, data, seen, screen, together))
    session = Session(run, experiment, options, data, device, screen, StopSignals(together), together)
    if experiment.sync_batchnorm and max(experiment.parts, together.world) % together.world:
        raise UsageError(
            f"sync_batchnorm: the batches of this run have {experiment.parts} parts, which {together.world} ranks "
            "cannot share evenly; go on with another number of ranks"
        )
    session.passed_over.update(row["step"] for row in together.led(run.skipped))
    report_unreadable(session)
    together.led(lambda: note_changes(session))
    choice.adopt(together.led(choice.made))  # of kernels: one choice on all ranks
    with session.stop:
        state = _train_to_end(session)
    if together.leads:
        if options.tensorboard:
            tensorboard.log_filters(run, state.shipped, state.step)
        finish(run, experiment, data, device, state, options.workers)
        screen.say(_late(run, asked.max_seconds))
        screen.say(f"finished {run.folder}")


def _late(run: Run, allowed: float) -> list[str]:
    """Return a line where a training took far longer than it was allowed: epochs cannot be taken back."""
    taken = timing.seconds(run.timings())
    if not allowed or taken < LATE * allowed:
        return []
    why = "the machine was slower than when its speed was measured, before step 0"
    return [f"note     it took {duration(taken)} of the {duration(allowed)} it was given: {why}"]


def _train_to_end(session: Session) -> TrainState:
    """Train from the newest checkpoint to the last step, and return the state there."""
    run, together = session.run, session.ranks
    while True:
        state = state_to_go_on_from(session)
        if session.options.tensorboard and together.leads:
            _begin_tensorboard(session, state)
        with contextlib.suppress(GoBack):
            try:
                train_to_end(session, state)
                session.stop.check()
            except (Interrupted, WorkerLost) as reason:
                if together.world > 1 and isinstance(reason, WorkerLost):  # the other ranks are in the middle of a step
                    raise
                save(session, state)
                together.wait()  # torchrun ends all ranks once one has left
                many = f" --nproc {together.world}" if together.world > 1 else ""
                raise type(reason)(
                    f"{reason}: saved at step {state.step:,}; go on with: mixlab train --resume {run.quoted}{many}"
                ) from None
            return state


def _resolve(run: Run, options: Options, data: DataSet, seen: Seen, screen: Screen, together: Ranks) -> Experiment:
    """Return the experiment with everything measured, once: a run that has it written keeps it."""
    if run.has_begun:
        return run.experiment
    asked, device = run.request, devices.choose_device(options.device)
    steps = Sweep().steps if asked.auto_learning_rate else 0
    experiment = _in_parts(asked.experiment, together)
    experiment, found = resolve(experiment, data, device, asked.max_seconds, options.workers, steps, together.world)
    screen.say(found.lines())
    if asked.auto_learning_rate:
        experiment = _choose_learning_rate(run, experiment, options, data, screen)
    changes.record(run, seen, {**data.train.unreadable, **data.validation.unreadable}, experiment.weights)
    run.write_experiment(experiment)
    return experiment


def _in_parts(experiment: Experiment, together: Ranks) -> Experiment:
    """Return the experiment with a part of each batch for every rank, and as many for each where they wait."""
    parts, world = max(experiment.parts, together.world), together.world
    if experiment.sync_batchnorm:
        parts = -(-parts // world) * world
    if parts > experiment.batch_size:
        raise UsageError(f"a batch of {experiment.batch_size} images is too small for {world} ranks")
    if experiment.accumulate == "auto":  # yet to be found, as many for each rank
        return experiment
    return experiment.model_copy(update={"accumulate": parts})


def _choose_learning_rate(
    run: Run, experiment: Experiment, options: Options, data: DataSet, screen: Screen
) -> Experiment:
    """Return the experiment with the rate that a range test suggests; nothing else of the test lasts."""
    device = devices.choose_device(options.device)
    found = measure(experiment, data, device, options.workers, Sweep(), screen)
    picture = lr_files.write(run.plots, experiment, found)
    rate = found.auto()
    screen.say(f"lr       {rate:g}, by a range test of {len(found.rates)} steps: {picture}")
    if found.note:
        screen.say(f"note     {found.note}")
    return experiment.model_copy(update={"optimizer": experiment.optimizer.model_copy(update={"learning_rate": rate})})


def _begin_tensorboard(session: Session, state: TrainState) -> None:
    """Log the batch of step 0 where it is yet to come; a file that cannot be read is missing from it."""
    tensorboard.begin(session.run, state.step)
    experiment, data = session.experiment, session.data
    if state.step == 0:
        batch = data.train.batch(experiment.order(data.train.labels, epoch=0)[0])
        if len(batch.indices):
            inputs, _ = inference.as_training_input(experiment, data.spec, batch.to(session.device), step=0, epoch=0)
            tensorboard.log_inputs(session.run, inputs)
