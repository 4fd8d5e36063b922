"""What can go wrong outside our code, as one tree.

* MetaError               anything a caller may want to catch
  - StoreError            the tracking server or store can't be used
    - Unreachable         it does not answer
    - UnsupportedStore    it is of a kind that can't be used safely (the file store)
    - StoreRefused        it answered no: not found, unknown user, wrong request
      - NoPermission      this user may not; says what to ask the administrator for
      - Damaged           a registered model's files are not those that were registered
    - Unreadable          its database can't be read directly; over REST it can
  - TryLater              another command is at work, or the time given was too short
  - NoCluster             no Dask, nobody at its address, other versions there, or it is lost
  - NotInstalled          a package that only an extra brings along; says what to install
  - NothingToLearn        no such experiment, no run with that metric
    - TooLittle           too few runs, or none that differ
  - NoModel               no meta-model has been trained for this metric
  - BadSpace              a search-space file says something that can't be
  - BadCommand            the training program of a worker can't be started as asked
  - NotReproduced         a search that was repeated has found something else
  - Exhausted             every configuration of the space has been run or suggested

A wrong argument is a `ValueError` or `TypeError`; a broken promise of our own is an `assert`.
"""


class MetaError(Exception):
    """Base of every error that is about the world, not about the call."""


class StoreError(MetaError):
    """The tracking server or store can't be used."""


class Unreachable(StoreError):
    """The tracking server does not answer."""


class UnsupportedStore(StoreError):
    """The store is of a kind that can't be used safely."""


class StoreRefused(StoreError):
    """The store answered, and the answer was no."""


class NoPermission(StoreRefused):
    """The user lacks a permission."""


class Damaged(StoreRefused):
    """A registered model's files are not those that were registered."""


class Unreadable(StoreError):
    """The store's database can't be read directly."""


class NoCluster(MetaError):
    """The cluster can't be used."""


class NotInstalled(MetaError):
    """A package that an extra brings along is not installed."""


class TryLater(MetaError):
    """It can't be done now, and may be done later: exit code 75."""


class NothingToLearn(MetaError):
    """No trials for what was asked."""


class TooLittle(NothingToLearn):
    """Too few trials to learn from, or none that differ: exit code 3."""


class NoModel(MetaError):
    """No meta-model has been trained for this metric."""


class BadSpace(MetaError):
    """A search-space file says something that can't be."""


class BadCommand(MetaError):
    """The training program of a worker can't be started as asked."""


class NotReproduced(MetaError):
    """A search that was repeated has found something else."""


class Exhausted(MetaError):
    """Every configuration of the search space has been run or suggested."""
