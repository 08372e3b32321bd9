#!/usr/bin/env python3
"""The protocols of src/backend/cuda/mailbox.h and copies.h in every order of events: no word is overwritten before it is taken, none is cleared that was not, no rank waits
for ever; what a rank adds has come, and what is copied over it has been added.

  tests/proof/mailbox.py              2 ranks in 8 exchanges, 3 ranks in 6; with copies 2 ranks in 8, 3 in 4
  tests/proof/mailbox.py --self-test  protocols that are wrong are found wrong

One word stands for all of an exchange, which go their ways independently. An event is a store that takes effect, or a load that finds its word. Stores of one kernel
take effect in any order, and at any time until the kernel ends; what follows in the code from what a load has found comes after it.

With copies, exchanges of even numbers promise: after the exchange before it a rank copies into the others' inboxes, in any order, and sends the words of the exchange
once its copies have ended; after it the rank adds what each of the others has copied, and then only begins the next exchange. A copy or an addition is a single event:
those of a step do not depend on each other, so that one that is under way for long is one that happens late.
"""
import sys


class Wrong(Exception):
    pass


def put(mapping, key, value):
    return mapping[:key] + (value,) + mapping[key + 1:]


def explore(ranks, exchanges, slots=2, ends_together=True, waits_for_all=True, copies=False, between=True, promises=True):
    """How many states there are; raises Wrong. ends_together: a kernel ends only after its stores of zeros have taken effect. waits_for_all: and when it has found
    all words. copies: inboxes, too; between: with an exchange between a step's additions and the next step's copies, else every exchange promises; promises: words are
    sent once copies have ended."""
    def place(to, sender, number):
        return (to * ranks + sender) * slots + number % slots

    others = [[p for p in range(ranks) if p != r] for r in range(ranks)]
    def promising(number):
        return copies and (number % 2 == 0 or not between)

    nothing = frozenset()
    # of each rank: the exchange under way, and the ranks to whom it has sent, whose words it has found, whose it has cleared; to whom it has copied for it, and what of
    # the one before it is to be added
    first = (((1, nothing, nothing, nothing, nothing, nothing),) * ranks, (0,) * (ranks * ranks * slots), nothing, (0,) * (ranks * ranks))
    seen, todo = {first}, [first]
    while todo:
        state, boxes, late, inboxes = todo.pop()
        after = []
        for r, (number, sent, found, cleared, copied, due) in enumerate(state):
            for p in due:  # to be added before anything else
                if inboxes[r * ranks + p] != number - 1:
                    raise Wrong(f"rank {r} adds {inboxes[r * ranks + p]} of rank {p} instead of {number - 1}")
                after.append((put(state, r, (number, sent, found, cleared, copied, due - {p})), boxes, late, inboxes))
            if number > exchanges or due:
                continue
            for p in others[r]:
                at, mine = place(p, r, number), place(r, p, number)
                if promising(number) and p not in copied:
                    after.append((put(state, r, (number, sent, found, cleared, copied | {p}, due)), boxes, late, put(inboxes, p * ranks + r, number)))
                if p not in sent and (len(copied) == ranks - 1 or not promising(number) or not promises):
                    if boxes[at]:
                        raise Wrong(f"rank {r} overwrites {boxes[at]} by {number} at rank {p}")
                    after.append((put(state, r, (number, sent | {p}, found, cleared, copied, due)), put(boxes, at, number), late, inboxes))
                if p not in found and boxes[mine]:
                    if boxes[mine] != number:
                        raise Wrong(f"rank {r} finds {boxes[mine]} of rank {p} in exchange {number}")
                    after.append((put(state, r, (number, sent, found | {p}, cleared, copied, due)), boxes, late, inboxes))
                if len(found) == ranks - 1 and p not in cleared:
                    store = (mine, number)
                    if not ends_together:  # it takes effect some time
                        after.append((put(state, r, (number, sent, found, cleared | {p}, copied, due)), boxes, late | {store}, inboxes))
                    else:
                        after.append((put(state, r, (number, sent, found, cleared | {p}, copied, due)), put(boxes, mine, 0), late, inboxes))
            enough = len(found) == ranks - 1 and len(cleared) == ranks - 1 if waits_for_all else len(found) > 0
            if len(sent) == ranks - 1 and enough and (len(copied) == ranks - 1 or not promising(number)):
                add = frozenset(others[r]) if promising(number) else nothing
                after.append((put(state, r, (number + 1, nothing, nothing, nothing, nothing, add)), boxes, late, inboxes))
        for store in late:
            if boxes[store[0]] != store[1]:
                raise Wrong(f"a late zero clears {boxes[store[0]]} instead of {store[1]}")
            after.append((state, put(boxes, store[0], 0), late - {store}, inboxes))
        if not after and any(number <= exchanges for number, *_ in state):
            raise Wrong("nobody goes on")
        for one in after:
            if one not in seen:
                seen.add(one)
                todo.append(one)
    return len(seen)


def self_test():
    for ranks, how in ((2, {"slots": 1}), (3, {"slots": 1}), (2, {"ends_together": False}), (3, {"waits_for_all": False}),
                       (2, {"copies": True, "between": False}), (3, {"copies": True, "between": False}), (2, {"copies": True, "promises": False})):
        try:
            explore(ranks, 3, **how)
        except Wrong:
            continue
        return f"{how}, {ranks} ranks: found right"
    return None


def main():
    if sys.argv[1:] == ["--self-test"]:
        wrong = self_test()
        print(f"mailbox: self-test {'failed: ' + wrong if wrong else 'passed'}")
        return 1 if wrong else 0
    for ranks, exchanges, copies in ((2, 8, False), (3, 6, False), (2, 8, True), (3, 4, True)):
        with_copies = " with copies" if copies else ""
        print(f"{ranks} ranks, {exchanges} exchanges{with_copies}: {explore(ranks, exchanges, copies=copies)} states, none wrong", flush=True)
    return 0


sys.exit(main())
