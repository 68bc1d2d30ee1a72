/* Commit, change of the view and hand-over of the sequencer, as comm/participant.hpp does them: three peers, of whom
   peers 0 and 1 form the first view {0, 1} and peer 2 enters. Round 0 changes the view to {0, 1, 2}, or, proposed by
   another sequencer, back to {0}: two changes that race. Round 1 is any record. Votes and records are durable, so that
   a crash for good is the same as never being scheduled again. Messages are steps that read the state of another peer as it is
   now, which includes any order and loss. Weights: 2 each, 3 for the first of an even view.

   Four variants must break the assertion. -DSINGLE: a record that changes the view needs a quorum of the old view alone,
   and a candidate likewise. -DTRUSTING: a peer that is further than the sequencer counts as if it had stored the
   sequencer's record. -DSTUBBORN: a candidate goes on counting votes after its log, and with it the view, changed.
   -DACCEPTING: a record that a candidate borrows counts as stored by it. */

#define N 3
#define TERMS 3
#define ROUNDS 2
#define NONE 0

/* Bit sets of peers. View of a value: what the state is after a record. */
#define VIEW_OLD 3    /* {0,1} */
#define VIEW_GROWN 7  /* {0,1,2} */
#define VIEW_SHRUNK 1 /* {0} */

/* Values of round 0: 1 grows the view, 2 shrinks it. Values of round 1: 1 + the proposer. */
#define view_after(value) ((value) == 1 -> VIEW_GROWN : ((value) == 2 -> VIEW_SHRUNK : VIEW_OLD))

#define has(set, p) (((set) >> (p)) & 1)
/* {0,1}: 0 weighs 3, 1 weighs 2, of 5. {0,1,2}: two of three. {0}: itself. */
#define quorum(view, set) \
    ((view) == VIEW_OLD -> has(set, 0) : ((view) == VIEW_SHRUNK -> has(set, 0) : \
     (has(set, 0) + has(set, 1) + has(set, 2) >= 2)))

typedef peer {
    byte term;           /* newest promised */
    byte final;          /* rounds below are final here */
    byte value[ROUNDS];  /* what its log holds; NONE: nothing */
    byte label[ROUNDS];  /* the term it was accepted in */
    byte borrowed;       /* of round final, in memory: what it would propose rather than what its log holds */
    byte borrowed_label;
    bool leads
};
peer p[N];
byte votes[N];       /* for this peer as a candidate of its term */
byte chosen[ROUNDS]; /* by whoever finds it final first */

/* Term of the last record, and the round after it. */
#define next_round(i) (p[i].value[1] != NONE -> 2 : (p[i].value[0] != NONE -> 1 : 0))
#define last_term(i) (p[i].value[1] != NONE -> p[i].label[1] : p[i].label[0])
#define claim_round(i) (p[i].borrowed != NONE -> p[i].final + 1 : next_round(i))
#define claim_term(i) (p[i].borrowed != NONE -> p[i].borrowed_label : last_term(i))
#define fresher(i, j) (claim_term(i) > last_term(j) || \
                       (claim_term(i) == last_term(j) && claim_round(i) >= next_round(j)))

/* The view in force, and the next one while a change is not final. */
#define view_of(i) (p[i].final == 0 -> VIEW_OLD : view_after(p[i].value[0]))
#define open_value(i) (p[i].borrowed != NONE -> p[i].borrowed : p[i].value[0])
#define changing(i) (p[i].final == 0 && open_value(i) != NONE)
#ifdef SINGLE
#define decided(i, set) quorum(view_of(i), set)
#else
#define decided(i, set) (quorum(view_of(i), set) && (!changing(i) || quorum(view_after(open_value(i)), set)))
#endif

inline campaign(i) {
    atomic {
        !p[i].leads && p[i].term < TERMS; /* also one that is not in the view: its own vote does not count then */
        p[i].term++;
        votes[i] = 1 << i
    }
}
#define forget_borrowed(i) p[i].borrowed = NONE; p[i].borrowed_label = 0
/* A candidate gets the newer record of a voter, to claim and to propose. */
inline borrow(i, j) {
    atomic {
        i != j && votes[i] != 0 && !p[i].leads && p[i].final < ROUNDS && p[j].final == p[i].final &&
            p[j].value[p[i].final] != NONE && p[j].label[p[i].final] <= p[i].term &&
            p[j].label[p[i].final] > p[i].label[p[i].final] && p[j].label[p[i].final] > p[i].borrowed_label;
#ifdef ACCEPTING
        p[i].value[p[i].final] = p[j].value[p[i].final];
        p[i].label[p[i].final] = p[j].label[p[i].final];
        if
        :: p[i].final == 0 -> p[i].value[1] = NONE; p[i].label[1] = 0
        :: else
        fi
#else
        p[i].borrowed = p[j].value[p[i].final];
        p[i].borrowed_label = p[j].label[p[i].final]
#endif
    }
}
inline vote(i, j) { /* j votes for i */
    atomic {
        i != j && votes[i] != 0 && !p[i].leads && p[j].term < p[i].term && (fresher(i, j) || p[i].final >= next_round(j));
        p[j].term = p[i].term;
        p[j].leads = false;
        votes[j] = 0;
        votes[i] = votes[i] | (1 << j)
    }
}
inline win(i) {
    atomic {
        votes[i] != 0 && !p[i].leads && decided(i, votes[i]);
        p[i].leads = true;
        votes[i] = 0;
        if
        :: p[i].borrowed != NONE ->
            p[i].value[p[i].final] = p[i].borrowed;
            p[i].label[p[i].final] = p[i].term;
            forget_borrowed(i)
        :: p[i].borrowed == NONE && p[i].final < ROUNDS && p[i].value[p[i].final] != NONE ->
            p[i].label[p[i].final] = p[i].term
        :: else
        fi
    }
}
inline propose(i, v) {
    atomic {
        p[i].leads && p[i].final < ROUNDS && p[i].value[p[i].final] == NONE;
        p[i].value[p[i].final] = v;
        p[i].label[p[i].final] = p[i].term
    }
}
/* A candidate whose log changes is none any more: the votes were given under another view. */
#ifdef STUBBORN
#define end_candidacy(j) skip
#else
#define end_candidacy(j) votes[j] = 0
#endif
/* j stores what i proposes, in i's term, once it has everything below. */
inline accept(i, j) {
    atomic {
        i != j && p[i].leads && p[i].final < ROUNDS && p[i].value[p[i].final] != NONE &&
            p[i].label[p[i].final] == p[i].term && p[j].term <= p[i].term && p[j].final == p[i].final &&
            p[j].label[p[i].final] < p[i].term;
        if
        :: p[j].term < p[i].term -> p[j].leads = false
        :: else
        fi;
        end_candidacy(j);
        forget_borrowed(j);
        p[j].term = p[i].term;
        p[j].value[p[i].final] = p[i].value[p[i].final];
        p[j].label[p[i].final] = p[i].term;
        if
        :: p[i].final == 0 -> p[j].value[1] = NONE; p[j].label[1] = 0
        :: else
        fi
    }
}
/* What a peer knows to be final counts when it is the same: the sequencer asks for it and compares. That the peer is
   further is not enough, as a sequencer of a later term may have brought it there, and the peer forgotten that term. */
#ifdef TRUSTING
#define same(i, j) (p[j].final > p[i].final)
#else
#define same(i, j) (p[j].final > p[i].final && p[j].value[p[i].final] == p[i].value[p[i].final])
#endif
#define stored(i, j) (same(i, j) || (p[j].final == p[i].final && p[j].label[p[i].final] == p[i].term && \
                                     p[j].value[p[i].final] != NONE))
inline finish(i) {
    atomic {
        p[i].leads && p[i].final < ROUNDS && p[i].value[p[i].final] != NONE && p[i].label[p[i].final] == p[i].term &&
            decided(i, (stored(i, 0) -> 1 : 0) | (stored(i, 1) -> 2 : 0) | (stored(i, 2) -> 4 : 0));
        is_final(i)
    }
}
inline is_final(i) {
    assert(chosen[p[i].final] == NONE || chosen[p[i].final] == p[i].value[p[i].final]);
    chosen[p[i].final] = p[i].value[p[i].final];
    forget_borrowed(i);
    p[i].final++
}
/* j learns from i that a round is final: of its own record by the term, or by taking i's record. */
inline learn(i, j) {
    atomic {
        i != j && p[i].final > p[j].final && !p[j].leads;
        end_candidacy(j);
        if
        :: p[j].value[p[j].final] == p[i].value[p[j].final]
        :: else ->
            p[j].value[p[j].final] = p[i].value[p[j].final];
            p[j].label[p[j].final] = p[i].label[p[j].final]
        fi;
        is_final(j)
    }
}

/* What was not durable is gone: the part, the votes got, and that the last record is final. */
inline restart(i) {
    atomic {
        p[i].final > 0 && (p[i].final == ROUNDS || p[i].value[p[i].final] == NONE);
        p[i].leads = false;
        votes[i] = 0;
        forget_borrowed(i);
        p[i].final--
    }
}

active [N] proctype participant() {
    byte me = _pid;
    do
    :: campaign(me)
    :: win(me)
    :: p[me].final == 0 -> propose(me, 1)
    :: p[me].final == 0 -> propose(me, 2)
    :: p[me].final == 1 -> propose(me, 1 + me)
    :: borrow(me, 0)
    :: borrow(me, 1)
    :: borrow(me, 2)
    :: vote(0, me)
    :: vote(1, me)
    :: vote(2, me)
    :: accept(0, me)
    :: accept(1, me)
    :: accept(2, me)
    :: finish(me)
    :: learn(0, me)
    :: learn(1, me)
    :: learn(2, me)
    :: restart(me)
    od
}
