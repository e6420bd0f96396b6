"""How a fit ended, with a sentence of advice for each way."""

from __future__ import annotations

import enum

from fitspike.errors import InvalidInputError, did_you_mean


class FitStatus(enum.Enum):
    """How a fit ended. The value is the advice that goes with it."""

    CONVERGED = "The optimum was reached to the model's tolerance; more steps would not change the result."
    PLATEAU = (
        "The loss stopped improving. If it is higher than you hoped, try a smaller learning rate, several seeds, or a model with a solver "
        "of its own."
    )
    STEP_LIMIT = "The step limit came before convergence. Continue with `--resume` and a higher stop.max_steps."
    TIME_LIMIT = "The time limit came before convergence. Continue with `--resume` and a higher stop.max_minutes."
    DIVERGED = (
        "A loss or parameter became infinite or NaN; the last finite parameters were kept. Lower optimiser.learning_rate, raise the "
        "penalties, or look for extreme values in the signals."
    )
    INTERRUPTED = "The fit was interrupted; its state is stored. Continue with `--resume`."

    @property
    def advice(self) -> str:
        """Return what to make of this status."""
        return self.value

    @property
    def is_usable(self) -> bool:
        """Return whether the parameters may be taken for a result."""
        return self not in (FitStatus.DIVERGED, FitStatus.INTERRUPTED)

    @classmethod
    def of(cls, name: str) -> FitStatus:
        """Return the status called `name`.

        Raises
        ------
        InvalidInputError
            If there is none, which is a fault of the model's solver or learning rule.
        """
        if name not in cls.__members__:
            raise InvalidInputError(
                f"a solver reported the status {name!r}{did_you_mean(name, cls.__members__) or '.'} Known: {', '.join(cls.__members__)}."
            )
        return cls[name]
