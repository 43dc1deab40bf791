"""What a user can get wrong; the messages say what to do."""


class CommandError(ValueError):
    """A command line that cannot be carried out."""


class RunError(ValueError):
    """A run's folder that is not one, or not in the state that was asked for."""


class ClusterError(RuntimeError):
    """A cluster that no longer has what a run needs; the message says what."""


class ServiceError(ValueError):
    """A service that cannot be started or reached, or that refuses; the message says why."""


class RecordError(RuntimeError):
    """What a run comes to can no longer be written down; the message says why and what is kept."""
