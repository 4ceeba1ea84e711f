"""What every objective is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self, get_type_hints

from torch import Tensor, fx, nn

from spikestill.graph import SpikingNetwork
from spikestill.types import InputError, Record

__all__ = ["Guide", "Objective"]

Guide = fx.GraphModule | SpikingNetwork
"""A teacher: a traced ANN, or a spiking network."""


class Objective(nn.Module):
    """A loss term on the records of student and teacher.

    An objective may own parameters; they are trained with the student and dropped afterwards.

    Attributes:
        name: as recipes spell it.
        needs_teacher: whether it makes no sense without one.
        teachers: the kinds of teacher that it can learn from, of "ann" and "snn".
        reads_steps: whether it reads the logits of single time steps, whatever its options.
        min_timesteps: the fewest time steps that it makes sense for.
        student_taps: the student's points whose firing rates it reads.
        teacher_taps: the teacher's points whose activations it reads.
        teacher_gradients: the teacher's points at which it reads the gradient of the teacher's cross-entropy.
        progress: the share of the training that is done, from 0 to 1, for objectives that change with it.
    """

    name: ClassVar[str]
    needs_teacher: ClassVar[bool] = True
    teachers: ClassVar[tuple[str, ...]] = ("ann",)
    reads_steps: ClassVar[bool] = False
    min_timesteps: ClassVar[int] = 1

    def __init__(self) -> None:
        super().__init__()
        self.student_taps: tuple[str, ...] = ()
        self.teacher_taps: tuple[str, ...] = ()
        self.teacher_gradients: tuple[str, ...] = ()
        self.progress = 1.0

    @classmethod
    def build(
        cls, student: SpikingNetwork, teacher: Guide | None, input_shape: tuple[int, ...], **options: Any
    ) -> Self:
        """The objective for a pair of networks; one that does not look into them takes its options alone."""
        return cls(**options)

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """The names of its options."""
        return tuple(cls.option_types())

    @classmethod
    def option_types(cls) -> dict[str, Any]:
        """Its options by name, with the types that they are annotated with."""
        given = get_type_hints(cls.build if "build" in vars(cls) else cls.__init__)
        return {
            name: hint for name, hint in given.items() if name not in ("student", "teacher", "input_shape", "return")
        }

    @classmethod
    def refuse_teacher(cls, teacher: Guide | None) -> None:
        """See that it can learn from this teacher.

        Raises:
            InputError: when it cannot.
        """
        kind = None if teacher is None else "snn" if isinstance(teacher, SpikingNetwork) else "ann"
        if kind is None and cls.needs_teacher:
            raise InputError(f"objective {cls.name} needs a teacher")
        if kind is not None and cls.needs_teacher and kind not in cls.teachers:
            wanted = {"ann": "an ANN", "snn": "a spiking network"}
            raise InputError(f"objective {cls.name} needs {wanted[cls.teachers[0]]} as its teacher, not {wanted[kind]}")

    @classmethod
    def needs_bptt(cls, options: Mapping[str, Any]) -> str | None:
        """Why it cannot be used under rate gradients, a phrase that names the way out; None if it can.

        Args:
            options: its own, as a recipe gives them.
        """
        if not (cls.reads_steps or options.get("each_step")):
            return None
        what = cls.name if cls.reads_steps else f"{cls.name}: each_step"
        return (
            f"objective {what} needs gradient: bptt, since under rate gradients none reaches a single step; "
            "to train every step there, set train_timesteps: anytime"
        )

    def steps_of(self, student: Record) -> Tensor:
        """The student's logits of every time step, ``[T, B, K]`` in float32.

        Raises:
            InputError: under rate gradients, where no gradient reaches a single step.
        """
        if student.steps is None:
            raise InputError(self.needs_bptt({"each_step": True}) or "")
        return student.steps.float()

    @abstractmethod
    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:
        """The term, a scalar in float32, not yet weighted; ``labels`` are ``[B]``."""
