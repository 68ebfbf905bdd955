"""What can go wrong with Kafka, in words that name the topic, the place and the way out."""

from __future__ import annotations

from typing import ClassVar

from state.failure import Actor, Failure


class KafkaRefused(Failure):
    """The cluster said no for good: authentication, authorisation, certificates or an impossible setting."""

    acts: ClassVar[Actor] = "user"


class TopicMissing(Failure):
    """A topic that the pipeline names does not exist, or ceased to."""

    acts: ClassVar[Actor] = "user"


class TopicRecreated(Failure):
    """A topic was deleted and created again: our positions mean nothing in the new one."""

    acts: ClassVar[Actor] = "user"


class OffsetUnavailable(Failure):
    """The records we must read next are no longer (or not) in the topic."""

    acts: ClassVar[Actor] = "user"


class UnreadableBatch(Failure):
    """A record batch in a format this release cannot read, or torn on its way."""

    acts: ClassVar[Actor] = "world"


class RecordTooLarge(Failure):
    """The topic does not take a record of that size."""

    acts: ClassVar[Actor] = "user"


class BrokerError(Failure):
    """The cluster answered with an error that may pass; a restart from the last checkpoint may help."""

    acts: ClassVar[Actor] = "world"
    retry_helps: ClassVar[bool] = True


class TransactionExpired(Failure):
    """An open transaction outlived its timeout. Nothing is lost: its records come again from the last checkpoint."""

    acts: ClassVar[Actor] = "world"
    retry_helps: ClassVar[bool] = True


class Fenced(Failure):
    """Another attempt of this pipeline has taken over; this one must end."""

    acts: ClassVar[Actor] = "world"


class CommitLost(Failure):
    """Records of a completed checkpoint were aborted by the broker before they could be committed."""

    acts: ClassVar[Actor] = "user"
