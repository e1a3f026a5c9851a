"""Learning rates that follow a plan: callbacks that set the rate before every step, or before every epoch.

A plan is a formula of the number of the step. That follows from epoch and batch, so a training that is resumed needs no
memory of it. The rates are in the optimizer's unit, its ``learning_rate``; one that something else sets is overwritten
at the next step.
"""

import inspect
import math
from collections.abc import Callable

from minicnn.callbacks import Callback, Logs
from minicnn.checks import number, positive_integer
from minicnn.errors import ArgumentError


class Schedule(Callback):
    """Base of the plans: a subclass says in `rate` which rate a step has.

    The rate of an epoch's last step is added to its logs as ``learning_rate``.

    Raises
    ------
    ArgumentError
        When training begins, if nobody knows how many batches an epoch has.

    Examples
    --------
    A plan of one's own is a formula:

    >>> from minicnn.schedules import Schedule
    >>> class Linear(Schedule):
    ...     def rate(self, step, total, per_epoch):
    ...         return 0.5 * (1 - step / total)
    >>> [Linear().rate(step, total=4, per_epoch=2) for step in range(4)]
    [0.5, 0.375, 0.25, 0.125]
    """

    def rate(self, step: int, total: int, per_epoch: int) -> float:
        """Return the learning rate of a step.

        Parameters
        ----------
        step : int
            How many steps come before it; all `total` and more may be asked for.
        total, per_epoch : int
            Steps of the whole training and of an epoch, at least 1.
        """
        raise NotImplementedError(f"{type(self).__name__} must define rate(step, total, per_epoch)")

    def on_train_begin(self, logs: Logs = None) -> None:
        if not self.params or not self.params["steps"]:
            raise ArgumentError(
                f"{type(self).__name__} must know how many batches an epoch has, and this data set does not tell. "
                "Give arrays, or a data set with a length."
            )
        self.per_epoch = self.params["steps"]
        self.total = self.params["epochs"] * self.per_epoch

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        step = self.epoch * self.per_epoch + batch
        self.model.optimizer.learning_rate = self.rate(step, self.total, self.per_epoch)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class StepDecay(Schedule):
    """The rate times `gamma` after every `step_size` epochs: initial_learning_rate * gamma^floor(epoch / step_size).

    Parameters
    ----------
    initial_learning_rate : float
        At least 0.
    step_size : int
        In epochs.
    gamma : float
        At least 0.

    Raises
    ------
    ArgumentError
        If an argument is not as above.

    References
    ----------
    PyTorch's StepLR, stepped after every epoch.

    Examples
    --------
    >>> from minicnn.schedules import StepDecay
    >>> plan = StepDecay(0.5, step_size=2, gamma=0.5)
    >>> [plan.rate(step, total=6, per_epoch=1) for step in range(6)]
    [0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    """

    def __init__(self, initial_learning_rate: float, step_size: int, gamma: float = 0.1) -> None:
        self.initial_learning_rate = number("StepDecay(initial_learning_rate)", initial_learning_rate, 0)
        self.step_size = positive_integer("StepDecay(step_size)", step_size)
        self.gamma = number("StepDecay(gamma)", gamma, 0)

    def rate(self, step: int, total: int, per_epoch: int) -> float:
        return self.initial_learning_rate * self.gamma ** (step // per_epoch // self.step_size)


class CosineDecay(Schedule):
    """From the initial rate down to `alpha` times it, along half a period of a cosine; then it stays there.

    initial_learning_rate * ((1 - alpha) * (1 + cos(pi * min(step / decay_steps, 1))) / 2 + alpha).

    Parameters
    ----------
    initial_learning_rate : float
        At least 0.
    decay_steps : int or None
        None is the whole training.
    alpha : float
        In [0, 1].

    Raises
    ------
    ArgumentError
        If an argument is not as above.

    References
    ----------
    Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017, equation 5.
    Keras's CosineDecay.

    Examples
    --------
    >>> from minicnn.schedules import CosineDecay
    >>> [round(CosineDecay(0.1).rate(step, total=4, per_epoch=1), 4) for step in range(5)]
    [0.1, 0.0854, 0.05, 0.0146, 0.0]
    """

    def __init__(self, initial_learning_rate: float, decay_steps: int | None = None, alpha: float = 0.0) -> None:
        self.initial_learning_rate = number("CosineDecay(initial_learning_rate)", initial_learning_rate, 0)
        self.decay_steps = _steps("CosineDecay(decay_steps)", decay_steps)
        self.alpha = number("CosineDecay(alpha)", alpha, 0, 1)

    def rate(self, step: int, total: int, per_epoch: int) -> float:
        done = min(step / (self.decay_steps or total), 1)
        return self.initial_learning_rate * ((1 - self.alpha) * _cosine(1, 0, done) + self.alpha)


class OneCycle(Schedule):
    """Up to `max_lr`, then down to almost nothing, each along half a period of a cosine.

    From max_lr / div_factor up, until the step pct_start * total_steps - 1; then down to
    max_lr / div_factor / final_div_factor in the last step. The momentum stays as it is.

    Parameters
    ----------
    max_lr : float
        At least 0.
    total_steps : int or None
        None is the whole training.
    pct_start : float
        Share of the way up, in [0, 1).
    div_factor, final_div_factor : float
        At least 1.

    Raises
    ------
    ArgumentError
        If an argument is not as above.

    References
    ----------
    Smith and Topin, Super-convergence: very fast training of neural networks using large learning rates, 2019.
    PyTorch's OneCycleLR, whose defaults and two phases these are.

    Examples
    --------
    >>> from minicnn.schedules import OneCycle
    >>> plan = OneCycle(0.5, pct_start=0.5, div_factor=10)
    >>> [round(plan.rate(step, total=6, per_epoch=1), 3) for step in range(6)]
    [0.05, 0.275, 0.5, 0.375, 0.125, 0.0]
    """

    def __init__(
        self, max_lr: float, total_steps: int | None = None, pct_start: float = 0.3,
        div_factor: float = 25.0, final_div_factor: float = 1e4,
    ) -> None:  # fmt: skip
        self.max_lr = number("OneCycle(max_lr)", max_lr, 0)
        self.total_steps = _steps("OneCycle(total_steps)", total_steps)
        self.pct_start = number("OneCycle(pct_start)", pct_start, 0, below=1)
        self.div_factor = number("OneCycle(div_factor)", div_factor, 1)
        self.final_div_factor = number("OneCycle(final_div_factor)", final_div_factor, 1)

    def rate(self, step: int, total: int, per_epoch: int) -> float:
        total = self.total_steps or total
        first, top = self.max_lr / self.div_factor, self.pct_start * total - 1  # the step that has the highest rate
        if step < top:
            return _cosine(first, self.max_lr, step / top)
        return _cosine(self.max_lr, first / self.final_div_factor, min((step - top) / (total - 1 - top), 1))


class WarmUp(Schedule):
    """From a low rate in a straight line up to a rate that then stays, or to a plan that begins there.

    initial_learning_rate + (target - initial_learning_rate) * step / warmup_steps, the target being the rate, or the
    plan's first; after `warmup_steps` the rate, or the plan, which counts its steps and its total from there.

    Parameters
    ----------
    schedule : float or Schedule
        A rate of at least 0, or a plan.
    warmup_steps : int
    initial_learning_rate : float
        At least 0.

    Raises
    ------
    ArgumentError
        If an argument is not as above.

    References
    ----------
    Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017, section 2.2.
    The line and what follows it are those of Keras's CosineDecay(warmup_target, warmup_steps).

    Examples
    --------
    >>> from minicnn.schedules import CosineDecay, WarmUp
    >>> plan = WarmUp(CosineDecay(0.1), warmup_steps=2)
    >>> [round(plan.rate(step, total=6, per_epoch=1), 4) for step in range(6)]
    [0.0, 0.05, 0.1, 0.0854, 0.05, 0.0146]
    """

    def __init__(self, schedule: float | Schedule, warmup_steps: int, initial_learning_rate: float = 0.0) -> None:
        plan = isinstance(schedule, Schedule)
        self.schedule = schedule if plan else number("WarmUp(schedule), if it is no Schedule,", schedule, 0)
        self.warmup_steps = positive_integer("WarmUp(warmup_steps)", warmup_steps)
        self.initial_learning_rate = number("WarmUp(initial_learning_rate)", initial_learning_rate, 0)

    def rate(self, step: int, total: int, per_epoch: int) -> float:
        done, then = step / self.warmup_steps, max(step - self.warmup_steps, 0)
        target = self.schedule
        if isinstance(target, Schedule):
            target = target.rate(then, max(total - self.warmup_steps, 1), per_epoch)
        return target if done >= 1 else self.initial_learning_rate + (target - self.initial_learning_rate) * done


class LearningRateScheduler(Callback):
    """Ask a function for the learning rate of each epoch, before it begins.

    The rate is added to the epoch's logs as ``learning_rate``. An epoch that is resumed gets the rate that it had.

    Parameters
    ----------
    schedule : function of the epoch, from 0, and of the rate so far; or of the epoch alone
    verbose : int, 1 prints a line for every epoch

    Raises
    ------
    ArgumentError
        If `schedule` is no function; in training, if it returns what is not a finite number of at least 0.

    References
    ----------
    Keras's LearningRateScheduler.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from minicnn.schedules import LearningRateScheduler
    >>> scheduler = LearningRateScheduler(lambda epoch, rate: rate if epoch < 2 else rate / 2, verbose=1)
    >>> scheduler.model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.5))
    >>> for epoch in range(3):
    ...     scheduler.on_epoch_begin(epoch)
    Epoch 1: LearningRateScheduler setting learning rate to 0.5.
    Epoch 2: LearningRateScheduler setting learning rate to 0.5.
    Epoch 3: LearningRateScheduler setting learning rate to 0.25.
    """

    kept = ("begun", "before")

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise ArgumentError(
                f"LearningRateScheduler expects a function of epoch and rate, or of the epoch. Received: {schedule!r}"
            )
        self.schedule, self.verbose = schedule, verbose
        self.on_train_begin()

    def on_train_begin(self, logs: Logs = None) -> None:
        self.begun, self.before = -1, 0.0  # the epoch that has begun, and the rate before it

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        if epoch != self.begun:
            self.begun, self.before = epoch, float(self.model.optimizer.learning_rate)
        given = (epoch, self.before) if _takes_two(self.schedule) else (epoch,)
        rate = number("what LearningRateScheduler's function returns", self.schedule(*given), 0)
        self.model.optimizer.learning_rate = rate
        if self.verbose > 0:
            print(f"Epoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.", flush=True)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


def _steps(name: str, value: int | None) -> int | None:
    return None if value is None else positive_integer(name, value)


def _cosine(start: float, end: float, done: float) -> float:
    """Return what lies between two rates when a share of half a period is done."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _takes_two(schedule: Callable[..., float]) -> bool:
    try:
        inspect.signature(schedule).bind(0, 0.0)
    except TypeError:
        return False
    except ValueError:  # it is not written in Python and does not say
        pass
    return True
