"""What can go wrong, as a user meets it.

    EvalError             anything below: printed without a traceback, exit code 2
    ├── UsageError        an argument, a task name, a configuration file
    ├── DataError         a benchmark's file, record or image
    ├── CheckpointError   a model folder: missing, of another model, damaged
    ├── PredictionError   predictions that do not fit the samples: missing, unknown, malformed
    ├── RunError          a run folder: of another run, unfinished, damaged
    ├── JudgeError        a judge: no key, refused, out of reach, out of budget
    └── PluginError       a package that offers tasks or back ends and breaks its promise

Every message says what was expected, what was found, where, and what to do next.
"""


class EvalError(Exception):
    """Base of every error that a user, a file or a plugin can cause."""


class UsageError(EvalError):
    """An argument, a task name or a configuration file is wrong."""


class DataError(EvalError):
    """A benchmark's file, record or image is missing or malformed."""


class CheckpointError(EvalError):
    """A checkpoint is missing, damaged, or not of the Qwen-VL architecture."""


class PredictionError(EvalError):
    """Predictions do not fit the samples they are to be scored against."""


class RunError(EvalError):
    """A run folder belongs to another run, is unfinished, or is damaged."""


class PluginError(EvalError):
    """A package that offers tasks or back ends breaks its promise."""


class JudgeError(EvalError):
    """A judge has no key, refuses what it is asked, cannot be reached, or would cost too much."""
