"""Histories that random ones were reduced to when they found a fault, by what went wrong in them."""

from __future__ import annotations

from tests.bpm.history import (
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
UNDER_WAY = Foreign("author's key")

FOUND: dict[str, History] = {
    # What a start proves that has failed.
    "throttled after the work, then not reached: counted as not sent": History(
        steps=(Try(faults=("429 after, then no connection",)),)
    ),
    "the token refused after the work, then not reached: counted as not sent": History(
        steps=(Try(faults=("token refused after, then no connection",)),)
    ),
    "the token refused after the work, then no other to be had": History(
        steps=(Try(faults=("token refused after, no other to be had",)),)
    ),
    # What a record proves.
    "the first try, after retries were changed, searched and refused": History(
        foreign=(WITHOUT_KEY,), steps=(Retries(1), Try())
    ),
    "a record that was lost and written anew counted as a proof": History(
        mode="start", steps=(Try(), LoseStore(), Try(dies_at=1), Try())
    ),
    "nothing was ever sent, and after a clear with other retries it was searched for": History(
        steps=(Try(faults=("no TLS",)), Clear(), Retries(1), Try())
    ),
    "a person was asked though no record was there, and it counted as one": History(
        subject="batch", launches=2, own_keys=(1, 2), steps=(Try(), LoseStore(), Try(), Upgrade(), Try())
    ),
    "a batch that had sent nothing and adopted all was begun anew": History(
        subject="batch", launches=1, is_checked=False, keeps_open=True, steps=(Try(), Clear(), Try(), Try())
    ),
    "a batch whose record was lost was taken for a deleted run's": History(
        subject="batch",
        launches=4,
        keeps_open=True,
        steps=(Try(faults=("499 before",)), Clear(keeps_store=False), Try(later=3 * DAY), Try()),
    ),
    # Which generation it is.
    "a clear after as many tries as retries were lowered by was not seen": History(
        retries=2, steps=(Try(), Retries(1), Move(state="Completed OK"), Clear(), Try())
    ),
    "the same, of an instance that was written down": History(
        retries=5,
        steps=(Try(), Retries(2), Try(), Try(), Clear(), Move(state="Completed OK"), Try()),
    ),
    "a batch adopted something while its generation was uncertain, and terminated it in the next try": History(
        subject="batch", launches=1, steps=(Try(), Clear(), Retries(1), Try(), Try())
    ),
    "where another launch was in its place and the generation uncertain, a second one was started": History(
        subject="batch", launches=1, has_store=False, steps=(Try(), Input(1), Retries(1), Try(), Try())
    ),
    "after a clear a batch went on with an older instance, and then terminated it for another launch": History(
        subject="batch", launches=1, steps=(Try(ends="fails"), Clear(), Try(), Input(1), Try())
    ),
    "what was open of another launch in its place was neither terminated nor in doubt, for its time said nothing": History(
        subject="batch",
        launches=1,
        server=Server(stamps="leading blank"),
        steps=(Try(ends="fails"), Retries(2), Input(1), Upgrade(), Try(later=3 * DAY)),
    ),
    "an older instance that was adopted counted as another one with its id": History(
        keeps_open=True, steps=(Try(), Clear(), Try(), Try())
    ),
    "what a failed wait had left open had ended before the clear, and counted once a person was asked": History(
        max_attempts=1,
        steps=(
            Try(lag=GRACE, ends="leaves it"),
            Move(state="Completed OK"),
            Clear(),
            Try(query_fault=20),
            Try(later=3 * DAY),
        ),
    ),
    # Runs that were deleted and made again.
    "a clear terminated what a deleted run had open": History(
        foreign=(DELETED,), steps=(Try(faults=("499 before",)), Try(later=3 * DAY), Clear(), Try())
    ),
    "the first try after a clear adopted what a deleted run had open": History(
        foreign=(SAME, SAME, SAME, DELETED), steps=(Try(faults=("400 after",)), Clear(), Try())
    ),
    "a batch adopted a deleted run's instance of a generation that is still to come": History(
        subject="batch", launches=3, own_keys=(1, 3), foreign=(SAME, DELETED), steps=(Try(),)
    ),
    "a batch adopted what a deleted run had open": History(
        subject="batch",
        launches=1,
        foreign=(DELETED,),
        steps=(Try(faults=("redirect before",)), Try(later=3 * DAY), Clear(), Try()),
    ),
    # Keys that come back changed.
    "a key that was cut off behind the prefix counted as another one": History(
        subject="batch",
        launches=3,
        server=Server(keys="cut at 50"),
        steps=(Try(), Try(faults=("redirect after",), lag=GRACE / 2)),
    ),
    "a key that was cut off matched an older start": History(
        server=Server(keys="cut at 20"),
        steps=(Try(), Move(state="User Terminated"), Try(faults=("redirect before",))),
    ),
    "what carried the author's key in another form was adopted once the form was known": History(
        subject="batch",
        launches=4,
        own_keys=(1, 2, 3, 4),
        server=Server(keys="upper case"),
        steps=(Try(), Iterate(), Try(faults=("500 about the token after",), lag=GRACE / 2)),
    ),
    "what carried the author's key in another form was too old to count, though it was open": History(
        mode="adopt",
        server=Server(keys="upper case"),
        foreign=(Foreign("same BPM", age=0.1), UNDER_WAY),
        steps=(Try(),),
    ),
    # Lists.
    "others' instances counted as the batch's, so that nothing seemed to lack": History(
        subject="batch",
        launches=4,
        server=Server(cap=3),
        foreign=(SAME, Foreign("deleted run", "Waiting for user interaction")),
        steps=(Try(), Try(later=3 * DAY)),
    ),
    "an open one that another had called ended the search": History(
        has_store=False,
        server=Server(stamps="dash", cap=2, order="by stamp", calls=True),
        foreign=(SAME,),
        steps=(Try(), Move(state="Terminated"), Try(), Try()),
    ),
    "what the instances of a batch had called was in doubt for ever": History(
        subject="batch",
        launches=1,
        server=Server(stamps="mixed", calls=True),
        foreign=(SAME,),
        steps=(Try(),),
    ),
    # Rows that cannot be read.
    "a row without a key that cannot be read counted as nothing": History(
        server=Server(keys="the id", unreadable="state"),
        steps=(Try(faults=("refused with 200 after",)), Try(later=3 * DAY)),
    ),
    "a list of one row that can be read, and of one that cannot, counted as whole": History(
        subject="batch",
        launches=3,
        server=Server(cap=2, unreadable="state"),
        steps=(Try(), Iterate(), Try(), Try(later=3 * DAY)),
    ),
    "the row of a known instance that cannot be read was in doubt for ever": History(
        server=Server(unreadable="businessKey"), steps=(Try(),)
    ),
}
