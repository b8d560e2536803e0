"""Reduced random histories that once found a fault, named after the fault."""

from __future__ import annotations

from tests.starting.history import (
    DAY,
    GRACE,
    Clear,
    Foreign,
    History,
    Input,
    Iterate,
    LoseStore,
    Move,
    Retries,
    Server,
    Try,
    Upgrade,
)

DELETED, WITHOUT_KEY, SAME = Foreign("deleted run"), Foreign("same BPM without key"), Foreign("same BPM")
UNDER_WAY = Foreign("custom key")

FOUND: dict[str, History] = {
    # What a failed start proves.
    "throttled after the work, then not reached: counted as not sent": History(
        steps=(Try(faults=("429 after, then no connection",)),)
    ),
    "the token refused after the work, then not reached: counted as not sent": History(
        steps=(Try(faults=("token refused after, then no connection",)),)
    ),
    "the token refused after the work, then no new token": History(
        steps=(Try(faults=("token refused after, no new token",)),)
    ),
    # What a record proves.
    "the first try, after retries were changed, searched and refused": History(
        foreign=(WITHOUT_KEY,), steps=(Retries(1), Try())
    ),
    "a record that was lost and rewritten counted as a proof": History(
        mode="start", steps=(Try(), LoseStore(), Try(dies_at=1), Try())
    ),
    "nothing was ever sent, but a try after a clear with other retries searched": History(
        steps=(Try(faults=("no TLS",)), Clear(), Retries(1), Try())
    ),
    "a person was asked although there was no record, and that counted as a record": History(
        subject="batch", launches=2, own_keys=(1, 2), steps=(Try(), LoseStore(), Try(), Upgrade(), Try())
    ),
    "a batch that had sent nothing and adopted all began again": History(
        subject="batch", launches=1, is_checked=False, keeps_open=True, steps=(Try(), Clear(), Try(), Try())
    ),
    "a batch whose record was lost counted as that of a deleted run": History(
        subject="batch",
        launches=4,
        keeps_open=True,
        steps=(Try(faults=("499 before",)), Clear(keeps_store=False), Try(later=3 * DAY), Try()),
    ),
    # The generation of a try.
    "a clear was not noticed because retries were lowered by the number of tries": History(
        retries=2, steps=(Try(), Retries(1), Move(state="Completed OK"), Clear(), Try())
    ),
    "the same, with a recorded instance": History(
        retries=5,
        steps=(Try(), Retries(2), Try(), Try(), Clear(), Move(state="Completed OK"), Try()),
    ),
    "a batch adopted something while its generation was uncertain, and terminated it in the next try": History(
        subject="batch", launches=1, steps=(Try(), Clear(), Retries(1), Try(), Try())
    ),
    "with another launch in its place and an uncertain generation, a second one was started": History(
        subject="batch", launches=1, has_store=False, steps=(Try(), Input(1), Retries(1), Try(), Try())
    ),
    "after a clear a batch adopted an older instance, and then terminated it for another launch": History(
        subject="batch", launches=1, steps=(Try(ends="fails"), Clear(), Try(), Input(1), Try())
    ),
    "an open instance of another launch in its place was neither terminated nor in doubt, because its time was unusable": History(
        subject="batch",
        launches=1,
        server=Server(stamps="leading blank"),
        steps=(Try(ends="fails"), Retries(2), Input(1), Upgrade(), Try(later=3 * DAY)),
    ),
    "an adopted older instance counted as a different instance with the same id": History(
        keeps_open=True, steps=(Try(), Clear(), Try(), Try())
    ),
    "an instance that a failed wait left open ended before the clear, but counted after a person was asked": History(
        max_attempts=1,
        steps=(
            Try(lag=GRACE, ends="leaves it"),
            Move(state="Completed OK"),
            Clear(),
            Try(query_fault=20),
            Try(later=3 * DAY),
        ),
    ),
    # Runs that were deleted and created again.
    "a clear terminated an open instance of a deleted run": History(
        foreign=(DELETED,), steps=(Try(faults=("499 before",)), Try(later=3 * DAY), Clear(), Try())
    ),
    "the first try after a clear adopted an open instance of a deleted run": History(
        foreign=(SAME, SAME, SAME, DELETED), steps=(Try(faults=("400 after",)), Clear(), Try())
    ),
    "a batch adopted a deleted run's instance of a future generation": History(
        subject="batch", launches=3, own_keys=(1, 3), foreign=(SAME, DELETED), steps=(Try(),)
    ),
    "a batch adopted an open instance of a deleted run": History(
        subject="batch",
        launches=1,
        foreign=(DELETED,),
        steps=(Try(faults=("redirect before",)), Try(later=3 * DAY), Clear(), Try()),
    ),
    # Keys changed by the server.
    "a key cut off behind the prefix counted as a different key": History(
        subject="batch",
        launches=3,
        server=Server(keys="cut at 50"),
        steps=(Try(), Try(faults=("redirect after",), lag=GRACE / 2)),
    ),
    "a cut-off key matched an older start": History(
        server=Server(keys="cut at 20"),
        steps=(Try(), Move(state="User Terminated"), Try(faults=("redirect before",))),
    ),
    "an instance with the custom key in another form was adopted once the form was known": History(
        subject="batch",
        launches=4,
        own_keys=(1, 2, 3, 4),
        server=Server(keys="upper case"),
        steps=(Try(), Iterate(), Try(faults=("500 about the token after",), lag=GRACE / 2)),
    ),
    "an open instance with the custom key in another form counted as too old": History(
        mode="adopt",
        server=Server(keys="upper case"),
        foreign=(Foreign("same BPM", age=0.1), UNDER_WAY),
        steps=(Try(),),
    ),
    # Lists.
    "others' instances counted as the batch's, so nothing seemed to be missing": History(
        subject="batch",
        launches=4,
        server=Server(cap=3),
        foreign=(SAME, Foreign("deleted run", "Waiting for user interaction")),
        steps=(Try(), Try(later=3 * DAY)),
    ),
    "an open instance called by another ended the search": History(
        has_store=False,
        server=Server(stamps="dash", cap=2, order="by stamp", calls=True),
        foreign=(SAME,),
        steps=(Try(), Move(state="Terminated"), Try(), Try()),
    ),
    "instances called by those of a batch stayed in doubt forever": History(
        subject="batch",
        launches=1,
        server=Server(stamps="mixed", calls=True),
        foreign=(SAME,),
        steps=(Try(),),
    ),
    # Unreadable rows.
    "an unreadable row without a key counted as nothing": History(
        server=Server(keys="the id", unreadable="state"),
        steps=(Try(faults=("refused with 200 after",)), Try(later=3 * DAY)),
    ),
    "a list of a readable and an unreadable row counted as complete": History(
        subject="batch",
        launches=3,
        server=Server(cap=2, unreadable="state"),
        steps=(Try(), Iterate(), Try(), Try(later=3 * DAY)),
    ),
    "an unreadable row of a known instance stayed in doubt forever": History(
        server=Server(unreadable="businessKey"), steps=(Try(),)
    ),
}
