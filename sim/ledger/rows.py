"""Where the ledger keeps its numbers: its scalars, its columns, and what a row of each holds."""

from __future__ import annotations

from sim.kernel.layout import scalar, slot

# scalars
TX_FREE_LEN = scalar(64)
BLOCKS_FREE = scalar(65)
PAYLOADS_FREE = scalar(66)
PAYLOAD_SIZE = scalar(67)  # most transactions of a block
EXECUTE_NS = scalar(68)  # per transaction
WARM_UP_NS = scalar(69)  # transactions submitted before this are not measured
SUBMITTED = scalar(70)
REJECTED = scalar(71)  # the client could not reach its entry node, or the transaction was invalid
COMMITTED = scalar(72)
ACKED = scalar(73)
EXPIRED = scalar(74)  # every copy was lost before a block took it
LIVE_TXS = scalar(75)
ACKS_NEEDED = scalar(76)  # replies a client waits for; 0: its entry node's
BROADCAST_TXS = scalar(77)  # 1: entry nodes pass transactions to all voters, 0: to the leader
GATEWAY_FIRST = scalar(78)  # endpoint number of the first gateway
GATEWAYS = scalar(79)
TRACE_LEN = scalar(80)
CLOSED_LEN = scalar(81)
DECIDE_WAITS = scalar(82)  # 1: a block decided before its parent waits for it, 0: it is an error
REPEATED = scalar(83)  # transactions that a second block contained
BLOCK_BYTES_MAX = scalar(84)
DECISIONS = scalar(85)  # blocks decided by at least one correct voter
STOP_AFTER = scalar(86)
INVALID_CLASS = scalar(87)  # transactions of this class and later ones fail verification at their entry voter
BLOCK_SERIAL = scalar(88)
BACKLOG_BYTES = scalar(89)  # > 0: blocks are always full of transactions of this size, without clients
TX_KIND = scalar(90)
REPLY_KIND = scalar(91)
RECEIPT_BYTES = scalar(92)
REPLY_SIGN_NS = scalar(93)
POOL_SIZE = scalar(94)  # ring capacity per node, a power of two
MEASURED = scalar(95)
MARK = scalar(96)
TX_VERIFY_NS = scalar(97)
CLASSES = scalar(98)  # of transactions
COMMITTED_MEASURED = scalar(99)
DECIDES = scalar(100)  # (node, block) pairs
TX_BYTES_COMMITTED = scalar(101)
DECIDING_KINDS = scalar(102)  # bit mask of the message types that count in messages per decision
BATCH_TIMEOUT_NS = scalar(131)  # a block that is not full waits so long, from its first transaction on; 0: not at all
BATCH_FROM = scalar(
    159
)  # it waits so long not from its first transaction, but 1: from the last block, 2: for beats from there
POOL_LIMIT = scalar(132)  # a node at which so many wait takes no more of its clients'
EXECUTE_PLACE = scalar(133)  # when blocks are executed (sim.ledger.execution)
EXECUTE_BLOCK_NS = scalar(136)
POOL_BYTES_LIMIT = scalar(137)
POOL_SENDER_LIMIT = scalar(138)  # transactions of one sender
POOL_EVICTS = scalar(139)  # 1: a full pool lets its oldest go, 0: it takes nothing
POOL_KEEPS_NS = scalar(140)  # what has waited so long in a pool leaves it
POOL_LIMITED = scalar(141)  # 1: some limit is set, so what leaves a pool is counted
RETRIES_MAX = scalar(142)  # how often a client whose transaction was refused tries again
RETRY_NS = scalar(143)  # after how long; then twice as long, and so on
RETRY_MOST_NS = scalar(144)
RETRIED = scalar(145)
MEASURE_END_NS = scalar(146)  # transactions submitted from here on are not measured
BUILDS_EARLY = scalar(150)  # 1: a block holds what waited when its parent came
REBUILD_NS = scalar(151)  # or when so many such times had gone by since; 0: never again
TICK_NS = scalar(152)  # at each beat of a clock that runs on a node may look for a block once; 0: there is none
RESULTS_NEEDED = scalar(153)  # voters that must have told a node what a block resulted in before it answers; 0: none
RESULT_KIND = scalar(154)
RESULT_BYTES = scalar(155)
RESULT_SIGN_NS = scalar(156)
RESULT_VERIFY_NS = scalar(157)
RESULT_HANDLE_NS = scalar(158)
ASKING_CLASSES = scalar(147)  # 1: some class is of clients who ask again once they have an answer
STATE_ON = scalar(161)  # 1: transactions read and write keys (sim.ledger.state)
CONFLICTS_ABORT = scalar(
    162
)  # 1: one whose reads are out of date has no effect, 0: all are executed one after the other
STATE_ROOT = scalar(163)  # hash of all that was written, in its order
KEEPS_MORE = scalar(164)  # 1: rows of TX_MORE are written
TRIES_MAX = scalar(165)  # how often a client whose transaction met a conflict sends it again
TRY_AGAIN_NS = scalar(166)  # how long after it has learned of that
EXECUTED_LEN = scalar(167)
RECORDS = scalar(168)  # 1: EXECUTED gets every transaction, 0: those of supervising classes
SCHEDULES = scalar(169)  # 1: what touches the same key is not executed side by side
LANES = scalar(170)
UNFROZEN = scalar(171)  # writes to frozen keys by classes that do not supervise
CROSSED = scalar(173)  # transactions that were sent abroad and must stay
CARRIED_LEN = scalar(174)
ENDORSES = scalar(175)  # 1: peers execute a client's request and sign it before it is ordered (sim.ledger.endorsement)
ENDORSE_KIND = scalar(176)
ENDORSE_NS = scalar(177)  # time a peer takes to execute it
ENDORSE_VERIFY_NS = scalar(178)  # and to verify its signature
ENDORSE_SIGN_NS = scalar(179)
ENDORSE_HANDLE_NS = scalar(180)
ENDORSE_TIMEOUT_NS = scalar(181)  # after which a client gives up waiting for endorsements
ENDORSED_BYTES = scalar(182)  # of an answer: the result with a signature
PEER_FIRST = scalar(183)  # seat of the first endorsing peer
PEERS = scalar(184)
PLANS = scalar(185)  # ways to meet the policy, per peer
ORDERERS_ALL = scalar(186)  # 1: peers send what is endorsed to all voters, 0: to one drawn for each
MISMATCHED = scalar(187)  # endorsements that differ because peers stand at different heights
ENDORSED = scalar(188)  # requests that enough peers endorsed
ENDORSING_NS = scalar(189)  # sum of the times that took
ORDERED = scalar(190)  # of those the transactions decided
ORDERING_NS = scalar(191)  # sum of the times from endorsement to the first decision
COMMITTING_NS = scalar(192)  # and from there to the answer
ANSWERED = scalar(193)
EXECUTES = scalar(194)  # 1: there is a state, or some class is watched: transactions have results
IO_NS = scalar(172)  # per transaction, whatever the lanes; apart from EXECUTE_NS only where SCHEDULES
FORKS = scalar(103)  # 1: undecided blocks may lie on several branches at once

# columns
TX = slot(36)
TX_FREE = slot(37)
TX_HELD = slot(38)  # bit set of seats that hold the transaction
POOL = slot(39)  # per seat a ring of (transaction, arrival time)
PEER = slot(40)  # PEER_WIDTH per endpoint
BLOCK = slot(41)
BLOCK_FREE = slot(42)
BLOCK_READY = slot(43)  # bit set of seats for which the block is decided but its parent not yet
BLOCK_REPLIES = slot(44)  # replies per gateway
BLOCK_RESULTS = slot(
    100
)  # per block and seat a bit set: voters that have told it their result; empty without RESULTS_NEEDED
PAYLOAD = slot(45)
PAYLOAD_FREE = slot(46)
HIST_CLIENT = slot(47)
HIST_FINAL = slot(48)
TRACE = slot(49)
CLOSED = slot(50)  # blocks that everybody has decided and whose clients are served
CLASS = slot(51)  # CLASS_WIDTH per transaction class
STREAM = slot(52)
REPLY_COUNT = slot(53)  # scratch, per gateway
WAITED = slot(88)  # WAITED_WIDTH per gateway and class: how long its clients waited for answers
POOL_FILL = slot(94)  # POOL_FILL_WIDTH per seat
SENDER_HELD = slot(95)  # per seat and sender: its transactions in the mempool; read only with POOL_SENDER_LIMIT
TX_MORE = slot(96)  # TX_MORE_WIDTH per transaction
THINK_QUANTILE = slot(97)  # quantiles of exponential waits (sim.kernel.chance)
STATE_KEY = slot(101)  # per key: version << 2 | frozen << 1 | held; the version is (height << VERSION_BITS) + place + 1
ACCESS = slot(102)  # ACCESS_WIDTH per access of a class
SKEW = slot(103)  # steps of skewed choices: first rank, and below what it ends
OUTCOME = slot(104)  # OUTCOME_WIDTH per class
EXECUTED = slot(105)  # EXECUTED_WIDTH per transaction: a list
BLOCK_COST = slot(106)  # per block the time of executing it, ns; read only where SCHEDULES
KEY_BUSY = slot(
    107
)  # BUSY_WIDTH per key that a block touches, found by hashing: when its last write and read end there
LANE_FREE = slot(108)  # scratch, per lane
CLASS_WAITS = slot(109)  # WAIT_BUCKETS per class: how long clients waited for success
CROSSING = slot(110)  # CROSSING_WIDTH for each of the first CROSSINGS_KEPT of them
CARRIED = slot(111)  # CARRIED_WIDTH per block that holds some: a list; only where there are borders
PLAN = slot(112)  # per peer PLANS bit sets of peers that together meet the policy, itself among them, the best first
HANDED = slot(84)  # blocks that Python must see to after a sweep or a trim

TX_WIDTH = 8
TX_SUBMIT, TX_GATEWAY, TX_CLASS, TX_DECIDED, TX_BLOCK, TX_REFS, TX_ENTRY, TX_NUMBER = range(8)
NO_ENTRY, EVERY_ENTRY = -1, -2  # TX_ENTRY, which else is a voter: handed in nowhere, or at all voters

PEER_WIDTH = 28
EXECUTED_HEIGHT = 24  # of the last block that the node has executed
POOL_HEAD, POOL_TAIL, FRESH, BATCH_ON, BATCH_AT, TIP, TIP_HEIGHT, FORWARD_TO = range(8)
TX_LAST, BATCH_TIMER, ENTRY, SUBMISSIONS = range(8, 12)
THOUGHTS, ACCEPTED, BUILT_NS, WAITING = range(12, 16)  # BUILT_NS: when its last block, or head, came
LAST_TICK = 16  # the last beat (TICK_NS) that the node has used up, times 2, or + 1: that a look waits for
QUIET = 17  # 1: it keeps decided blocks, and neither executes them nor answers clients
WATCHED = 18  # 1: Python is told of each block that this node decides
OPEN_HEIGHT = 20  # the highest block that the node voted for; above its tip: it waits for a decision
OPEN_NS = 21  # since when
APART = 22  # 1: corrupted, or an observer: what it decides settles nothing
MUTE = 23  # > 0: so many behaviours keep it from answering clients and from passing on what they sent
CLOCK_Q20 = 19  # rate of the node's clock, times 2**20; 0: it runs right

BLOCK_WIDTH = 24
PARENT, HEIGHT, VIEW, PROPOSER, PROPOSED_NS, TXS, BYTES, DECIDED_BY, STANDING, PAYLOAD_AT = range(10)
UNACKED, CHILD, SIBLING, NUMBER, STAMP, CLOSE_STATE = 10, 11, 12, 13, 14, 15
PARENT_NUMBER, SEEN, NEXT_UNSEEN, CASE, CASE_ACTION, CASE_ROWS = 16, 17, 18, 19, 20, 21  # three CASE_ROWS

# STANDING: nobody has decided it; only those who are APART; a correct voter; and a client knows
UNDECIDED, DECIDED_APART, SETTLED, TOLD = range(4)

TX_MORE_WIDTH = 14
TX_PEER = 6  # the peer whose word its client waits for
TX_STAGE = 7  # ENDORSING or later
TX_ATTEMPT = 8  # times its client has asked for endorsements
TX_LOW, TX_HIGH = 9, 10  # heights of the peers that have endorsed it
TX_PEERS_LEFT = 11  # bit set of peers whose answer is due
TX_ENDORSED_NS, TX_ORDERED_NS = 12, 13
ENDORSING, ORDERING, GONE = range(3)  # TX_STAGE; GONE: its client waits no longer for its endorsement
TX_REFUSALS, TX_SENDER = range(2)
TX_KEYS = 2  # its number among those of its class at its gateway, which draws its keys; that of the first try
TX_SNAPSHOT = 3  # height of the state that it read, -1 until it has
TX_RESULT = 4  # VALID, CONFLICT or REFUSED, once it is executed
TX_TRIES = 5  # conflicts that it has met before

VALID, CONFLICT, REFUSED = range(3)
SLIPPED = 3  # on record only: it had its effect on a key that was frozen
VERSION_BITS = 21  # of a transaction's place in its block

ACCESS_WIDTH = 11
ACCESS_STREAM = 10  # the access whose draws it has: its own, or that of the class it follows
ACCESS_FIRST, ACCESS_SIZE, ACCESS_COUNT, ACCESS_READS, ACCESS_WRITES, ACCESS_NEEDS, ACCESS_LEAVES = range(7)
ACCESS_IGNORES, ACCESS_SKEW, ACCESS_STEPS = 7, 8, 9  # does not look whether a key is frozen; its rows of SKEW
BUSY_WIDTH = 4
BUSY_MARK, BUSY_KEY, BUSY_WRITTEN, BUSY_READ = range(4)  # rows of another block's mark are free
ANY, FREE, HELD = range(3)  # ACCESS_NEEDS
SAME, LEFT_FREE, LEFT_HELD, LEFT_FROZEN, LEFT_THAWED = range(5)  # ACCESS_LEAVES

OUTCOME_WIDTH = 8
SUCCEEDED, CONFLICTS, REFUSALS, TRIED_AGAIN, GIVEN_UP, LATE, TURNED_AWAY, LOST = range(8)

CROSSING_WIDTH, CROSSINGS_KEPT = 5, 16
CROSSING_NS, CROSSING_FROM, CROSSING_TO, CROSSING_TX, CROSSING_CLASS = range(5)
CARRIED_WIDTH = 4
CARRIED_BLOCK, CARRIED_COUNT, CARRIED_TX, CARRIED_CLASS = range(4)

EXECUTED_WIDTH = 9
DONE_HEIGHT, DONE_PLACE, DONE_KEYS, DONE_CLASS, DONE_SNAPSHOT, DONE_RESULT, DONE_SUBMIT, DONE_BLOCK, DONE_NS = range(9)

WAIT_BITS = 6  # of a client's wait in microseconds: a bucket is at most 1/64 wide
WAIT_BUCKETS = 40 << WAIT_BITS

POOL_FILL_WIDTH = 4
GONE_SINCE = 2  # when the oldest came of what left undecided since the node's last decision, + 1; 0: nothing did
POOL_BYTES, POOL_SORTED_HEIGHT = range(2)  # the latter: its node's tip when what is decided was last taken out

CLASS_WIDTH = 20
CLASS_BYTES, CLASS_COMMITTED, CLASS_ACKED, CLASS_SUBMITTED = range(4)
CLASS_ASKS = 4  # 1: each answer is followed by the next request
CLASS_FOLLOWED = 5  # answers that have been
CLASS_THINK_NS = 6  # how long after the answer
CLASS_THINK_DRAWN = 7  # 1: that is the mean of an exponential wait
CLASS_MOST = 8  # requests that may be submitted
CLASS_SENDERS = 9  # at each gateway, who take turns
CLASS_SENDER_FIRST = 10  # number of the first one
CLASS_DEADLINE_NS = 11  # an answer later than this after submission is late; 0: there is none
CLASS_ACCESS_FIRST, CLASS_ACCESSES = 12, 13  # its rows of ACCESS
CLASS_SIGNATURES = 14  # that a voter verifies
CLASS_STAYS = 16  # 1: its transactions must not leave the country
CLASS_WATCHED = 17  # 1: what becomes of its transactions is on record (EXECUTED), with or without a state
CLASS_VALID_NS = 18  # so long after its submission a transaction may still have its effect; 0: always
CLASS_SUPERVISES = 15  # 1: orders of the supervising department, which frozen keys obey

WAITED_WIDTH = 6
ORDINAL = 5  # requests submitted: the next one's number there, by which its keys are drawn
WAITED_COUNT, WAITED_SUM_NS, WAITED_LEAST_NS, WAITED_GREATEST_NS = range(4)
OWED = 4  # requests of closed-loop clients that were lost, and which they will replace

STREAM_WIDTH = 8
STREAM_GATEWAY, STREAM_POS, STREAM_LEN, STREAM_TIMES, STREAM_CLASS = range(5)
STREAM_EACH = 5  # address of the class of each transaction, added to STREAM_CLASS; 0: they are all of that one

TRACE_WIDTH = 8
(
    EVENT_PROPOSED,
    EVENT_DECIDED,
    EVENT_VIEW,
    EVENT_CRASHED,
    EVENT_RESTARTED,
    EVENT_FAULT,
    EVENT_HEALED,
    EVENT_NOTE,
    EVENT_HEAD,
    EVENT_REVERTED,
    EVENT_MEMBERSHIP,
    EVENT_READ,
    EVENT_TOLD,
) = range(13)
