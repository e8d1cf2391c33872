"""Errors a user can act on; verbs print the message alone and exit with `exit_code`."""


class InputError(ValueError):
    """Something the user gave is wrong: the message names the value and the way out."""

    exit_code = 2


class DataError(InputError):
    """A data set is missing, empty, broken, or does not fit the run."""

    exit_code = 3


class StorageError(InputError):
    """The disk is full, or the quota used up; what was whole before still is."""

    exit_code = 5


class MissingWeightsError(InputError):
    """Pretrained weights are neither in the folder named, nor in the cache, nor reachable."""

    exit_code = 4
