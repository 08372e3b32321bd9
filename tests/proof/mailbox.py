#!/usr/bin/env python3
"""The protocol of src/backend/cuda/mailbox.h in every order of events: no word is overwritten before it is taken, none is cleared that was not, no rank waits for ever.

  tests/proof/mailbox.py              2 ranks in 8 exchanges, 3 ranks in 6
  tests/proof/mailbox.py --self-test  protocols that are wrong are found wrong

One word stands for all of an exchange, which go their ways independently. An event is a store that takes effect, or a load that finds its word. Stores of one kernel
take effect in any order, and at any time until the kernel ends; what follows in the code from what a load has found comes after it.
"""
import sys


class Wrong(Exception):
    pass


def put(mapping, key, value):
    return mapping[:key] + (value,) + mapping[key + 1:]


def explore(ranks, exchanges, slots=2, ends_together=True, waits_for_all=True):
    """How many states there are; raises Wrong. ends_together: a kernel ends only after its stores of zeros have taken effect. waits_for_all: and when it has found
    all words."""
    def place(to, sender, number):
        return (to * ranks + sender) * slots + number % slots

    others = [[p for p in range(ranks) if p != r] for r in range(ranks)]
    # of each rank: the exchange under way, and the ranks to whom it has sent, whose words it has found, whose it has cleared
    first = (((1, frozenset(), frozenset(), frozenset()),) * ranks, (0,) * (ranks * ranks * slots), frozenset())
    seen, todo = {first}, [first]
    while todo:
        state, boxes, late = todo.pop()
        after = []
        for r, (number, sent, found, cleared) in enumerate(state):
            if number > exchanges:
                continue
            for p in others[r]:
                at, mine = place(p, r, number), place(r, p, number)
                if p not in sent:
                    if boxes[at]:
                        raise Wrong(f"rank {r} overwrites {boxes[at]} by {number} at rank {p}")
                    after.append((put(state, r, (number, sent | {p}, found, cleared)), put(boxes, at, number), late))
                if p not in found and boxes[mine]:
                    if boxes[mine] != number:
                        raise Wrong(f"rank {r} finds {boxes[mine]} of rank {p} in exchange {number}")
                    after.append((put(state, r, (number, sent, found | {p}, cleared)), boxes, late))
                if len(found) == ranks - 1 and p not in cleared:
                    store = (mine, number)
                    if not ends_together:  # it takes effect some time
                        after.append((put(state, r, (number, sent, found, cleared | {p})), boxes, late | {store}))
                    else:
                        after.append((put(state, r, (number, sent, found, cleared | {p})), put(boxes, mine, 0), late))
            enough = len(found) == ranks - 1 and len(cleared) == ranks - 1 if waits_for_all else len(found) > 0
            if len(sent) == ranks - 1 and enough:
                after.append((put(state, r, (number + 1, frozenset(), frozenset(), frozenset())), boxes, late))
        for store in late:
            if boxes[store[0]] != store[1]:
                raise Wrong(f"a late zero clears {boxes[store[0]]} instead of {store[1]}")
            after.append((state, put(boxes, store[0], 0), late - {store}))
        if not after and any(number <= exchanges for number, *_ in state):
            raise Wrong("nobody goes on")
        for one in after:
            if one not in seen:
                seen.add(one)
                todo.append(one)
    return len(seen)


def self_test():
    for ranks, how in ((2, {"slots": 1}), (3, {"slots": 1}), (2, {"ends_together": False}), (3, {"waits_for_all": False})):
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
    for ranks, exchanges in ((2, 8), (3, 6)):
        print(f"{ranks} ranks, {exchanges} exchanges: {explore(ranks, exchanges)} states, none wrong", flush=True)
    return 0


sys.exit(main())
