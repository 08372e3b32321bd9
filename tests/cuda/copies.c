/* Sums of gradients by copies (backend/cuda/copies.c, together.c), on no device: streams are queues of work, of which the head of
 * any, of any rank, is done next, a piece at a time, in orders that are drawn. So what may happen at the same time happens in
 * many orders, and a step that reads or overwrites too early has a wrong sum. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */
#include "cuda/queued_device.h"
#include "splitmix.h"

enum { TRIES = 1 << 16, WORDS = 1 << 16, SUMS = 7 };

static uint64_t dice = 1;
static int used, wrong;                               /* sums of a step, the first ones; values that were found wrong */
static size_t reserved = 100352 + 16128 + 1024 + 768; /* more than the sums take */

static size_t draw(size_t below) { return (size_t)(splitmix64(&dice) % below); }

/* ---- steps ---- */

/* The sums of a step, in the order in which they begin, at places of a rank's memory; those that adjoin are copied as one. */
static const struct {
  size_t at, count;
  int bits;
} sums[SUMS] = {
    {1000, 3, 64},            /* few: travel with the exchange */
    {0, 70, 32},              /* too little for a copy of its own: goes with the next one, before which it lies */
    {256 / 4 + 64, 1, 32},    /* behind 280 bytes, rounded up */
    {8192, 1000, 64},         /* before the next one, of another type */
    {8192 + 2048, 20000, 32}, /* enough */
    {40000, 100, 64},         /* elsewhere, and the last: not enough */
    {50001, 66, 64},          /* not aligned: NCCL's; left out where NCCL's order would hide a mistake */
};

typedef struct Rank {
  NitiCuda cuda;
  int32_t *memory; /* [WORDS] */
} Rank;

static Rank ranks[RANKS_MOST];

static int64_t value_of(int rank, int step, int sum, size_t i) {
  uint64_t state = ((uint64_t)rank << 48) ^ ((uint64_t)step << 32) ^ ((uint64_t)sum << 24) ^ i;
  const uint64_t word = splitmix64(&state);
  return sums[sum].bits == 32 ? (int64_t)(word % 1000001) - 500000 : (int64_t)(word >> 3) - ((int64_t)1 << 60);
}

static bool is_idle(int rank, int step) { return step % 3 == 2 && rank == size - 1; }

static int64_t total_of(int step, int sum, size_t i) {
  int64_t total = 0;
  for (int r = 0; r < size; ++r) total += is_idle(r, step) ? 0 : value_of(r, step, sum, i);
  return total;
}

static void set(char *data, int bits, size_t i, int64_t value) {
  const int32_t narrow = (int32_t)value;
  if (bits == 32)
    memcpy(data + 4 * i, &narrow, 4);
  else
    memcpy(data + 8 * i, &value, 8);
}

static int64_t get(const char *data, int bits, size_t i) {
  int32_t narrow;
  int64_t value;
  memcpy(&narrow, data + 4 * i, 4);
  if (bits == 32) return narrow;
  memcpy(&value, data + 8 * i, 8);
  return value;
}

static void enqueue_sum(Rank *rank, Kind kind, int step, int sum) {
  if (rank->cuda.error != cudaSuccess) return;
  Work *w = enqueue(rank->cuda.stream, kind);
  w->to = (char *)(rank->memory + sums[sum].at);
  w->bytes = sums[sum].count * (size_t)sums[sum].bits / 8;
  w->step = step;
  w->number = sum;
}

/* As runs of the executable enqueue it, or recordings replay it. forward: a maximum is exchanged before backward. */
static void enqueue_step(Rank *rank, int step, bool forward) {
  NitiBackend *b = &rank->cuda.base;
  b->together.idle = is_idle(self, step);
  if (forward) niti_cuda_share_range(&rank->cuda);
  for (int i = 0; i < used; ++i) {
    enqueue_sum(rank, FILL, step, i);
    niti_cuda_all_sum_begin(b, rank->memory + sums[i].at, sums[i].count, sums[i].bits);
  }
  assert_true(niti_cuda_has_sums(&rank->cuda));
  niti_cuda_all_sum_wait(b);
  assert_false(niti_cuda_has_sums(&rank->cuda));
  for (int i = 0; i < used; ++i) enqueue_sum(rank, CHECK, step, i);
}

/* ---- doing it ---- */

static bool exchange(const Stream *s, Work *w) {
  Meeting *m = &meetings[w->number];
  if (!m->here[s->rank]) {
    assert_true(m->sent == 0 || m->bytes == w->bytes);
    m->bytes = w->bytes;
    m->of[s->rank] = malloc(w->bytes + 1);
    if (w->bytes > 0) memcpy(m->of[s->rank], w->values, w->bytes);
    m->here[s->rank] = true;
    ++m->sent;
    return true;
  }
  if (m->sent < size) return false;
  for (int r = 0; r < size; ++r) {
    for (size_t i = 0; r != s->rank && i < w->bytes / 8; ++i)
      set((char *)w->values, 64, i, (int64_t)((uint64_t)get((char *)w->values, 64, i) + (uint64_t)m->of[r][i]));
  }
  w->done = w->bytes + 1;
  return true;
}

/* A piece of work on bytes [from, end), whole values. */
static void do_piece(const Stream *s, const Work *w, size_t from, size_t end) {
  const int bits = w->kind == ADD ? (w->sum.wide ? 64 : 32) : w->kind == FILL || w->kind == CHECK ? sums[w->number].bits : 32;
  const size_t first = from * 8 / (size_t)bits, last = end * 8 / (size_t)bits;
  if (w->kind == COPY) memcpy(w->to + from, w->from + from, end - from);
  if (w->kind == CLEAR) memset(w->to + from, 0, end - from);
  for (size_t i = first; w->kind == FILL && i < last; ++i) set(w->to, bits, i, value_of(s->rank, w->step, w->number, i));
  for (size_t i = first; w->kind == CHECK && i < last; ++i) wrong += get(w->to, bits, i) != total_of(w->step, w->number, i);
  for (size_t i = first; w->kind == ADD && i < last; ++i) {
    int64_t sum = get(w->sum.data, bits, i);
    for (int k = 0; k < w->parts; ++k) sum += get(w->from + (size_t)k * w->part + w->sum.offset, bits, i);
    set(w->sum.data, bits, i, sum);
  }
}

/* Whether something was done. */
static bool go_on(Stream *s) {
  if (s->done == s->count) return false;
  Work *w = &s->work[s->done];
  if (w->kind == WAIT) {
    if (w->stream->done < w->until) return false;
    ++s->done;
    return true;
  }
  if (w->kind == EXCHANGE) {
    const bool did = exchange(s, w);
    s->done += w->done > w->bytes;
    return did;
  }
  const size_t left = w->bytes - w->done, some = (1 + draw(left)) / 8 * 8,
               piece = some > 0 && some < left && draw(3) ? some : left;
  do_piece(s, w, w->done, w->done + piece);
  w->done += piece;
  s->done += w->done == w->bytes;
  return true;
}

/* Whether all was done: not where ranks wait for one that has failed. */
static bool run_all(void) {
  for (int tries = 0; tries < TRIES; ++tries) {
    bool ended = true;
    const int favourite = (int)draw(2 * RANKS_MOST); /* is ahead of the others for a while */
    for (size_t i = draw(40); i > 0; --i) (void)go_on(&streams[favourite / 2][favourite % 2]);
    if (go_on(&streams[draw(RANKS_MOST)][draw(2)])) tries = 0;
    for (int r = 0; r < RANKS_MOST; ++r)
      ended = ended && streams[r][0].done == streams[r][0].count && streams[r][1].done == streams[r][1].count;
    if (ended) return true;
  }
  return false;
}

/* ---- the cases ---- */

static void open_ranks(int count, const char *way) {
  size = count;
  sums_way = way;
  event_count = copies_made = wrong = 0;
  memset(streams, 0, sizeof streams);
  memset(exchanges, 0, sizeof exchanges);
  for (self = 0; self < size; ++self) {
    Rank *rank = &ranks[self];
    memset(&rank->cuda, 0, sizeof rank->cuda);
    for (int k = 0; k < 2; ++k) streams[self][k].rank = self;
    rank->memory = aligned_alloc(256, WORDS * sizeof *rank->memory);
    memset(rank->memory, 0, WORDS * sizeof *rank->memory);
    rank->cuda.device = self;
    rank->cuda.stream = (cudaStream_t)(void *)&streams[self][0];
    rank->cuda.range = calloc(1, sizeof *rank->cuda.range);
    rank->cuda.base.together.ranks = (NitiRanks *)(void *)rank;
    rank->cuda.base.together.whole = 1;
    assert_int_equal(niti_cuda_connect(&rank->cuda.base, rank->cuda.base.together.ranks), NITI_OK);
    assert_int_equal(niti_cuda_reserve_sums(&rank->cuda.base, reserved), NITI_OK);
  }
  for (int r = 0; r < size; ++r) {
    for (int k = 0; k < size && ranks[r].cuda.copies; ++k) ranks[r].cuda.copies->inboxes.of[k] = memories[k];
  }
}

static void close_ranks(void) {
  for (self = 0; self < size; ++self) {
    Rank *rank = &ranks[self];
    if (self % 2) niti_cuda_disconnect(&rank->cuda.base);
    niti_cuda_leave(&rank->cuda);
    free(rank->memory);
    free(rank->cuda.range);
    free(memories[self]);
    memories[self] = NULL;
  }
  for (int i = 0; i < EXCHANGES_MOST; ++i) {
    for (int r = 0; r < RANKS_MOST; ++r) free(meetings[i].of[r]);
  }
  memset(meetings, 0, sizeof meetings);
  assert_int_equal(opened, 0);
}

/* How many values were wrong. */
static int train(int count, const char *way, int steps, bool forward) {
  open_ranks(count, way);
  for (self = 0; self < size; ++self) {
    for (int step = 0; step < steps; ++step) enqueue_step(&ranks[self], step, forward);
  }
  if (!run_all()) fail_msg("nobody goes on");
  close_ranks();
  return wrong;
}

/* Whether a call of the victim's failed, and it knows. The others never have a wrong sum: they have the right ones of the steps
 * before, or wait for the victim's promise, until the process ends them (ranks.h). */
static bool train_failing(int count, int number) {
  enum { STEPS = 3 };
  open_ranks(count, NULL);
  call_count = 0;
  fail_at = number;
  for (self = 0; self < size; ++self) {
    for (int step = 0; step < STEPS && ranks[self].cuda.error == cudaSuccess; ++step) enqueue_step(&ranks[self], step, true);
  }
  const bool failed = call_count >= fail_at;
  for (int r = 0; r < size; ++r) assert_int_equal(ranks[r].cuda.error != cudaSuccess, failed && r == victim);
  assert_int_equal(run_all(), !failed);
  assert_int_equal(wrong, 0);
  close_ranks();
  return failed;
}

static void test_a_step_s_own_call_fails(void **state) {
  enum { ORDERS = 4 };
  int failures = 0;
  (void)state;
  for (int order = 0; order < ORDERS; ++order) {
    used = order % 2 ? SUMS - 1 : SUMS;
    for (int count = 2; count <= RANKS_MOST; ++count) {
      victim = (int)draw((size_t)count);
      for (int number = 1; train_failing(count, number); ++number) ++failures;
    }
  }
  victim = -1;
  print_message("%d failures\n", failures);
  assert_true(failures > ORDERS * 3 * 10);
}

static void test_sums_are_right_in_any_order(void **state) {
  (void)state;
  for (int i = 0; i < 60; ++i) {
    used = i % 4 ? SUMS - 1 : SUMS;
    for (int count = 2; count <= RANKS_MOST; ++count) assert_int_equal(train(count, i % 2 ? NULL : "copies", 6, true), 0);
  }
}

/* Without an exchange between two steps: the orders that are drawn show it. */
static void test_inboxes_that_are_not_waited_for_show(void **state) {
  int found = 0;
  (void)state;
  used = SUMS - 1;
  for (int i = 0; i < 40; ++i) found += train(2, NULL, 6, false) > 0;
  assert_true(found > 0);
}

static void test_what_is_enqueued(void **state) {
  (void)state;
  used = SUMS;
  assert_int_equal(train(3, NULL, 1, true), 0);
  assert_int_equal(copies_made, 3 * 2 * 3); /* the second and third sum, the fourth and fifth, the sixth */
  assert_int_equal(exchanges[0], 3);        /* the forward's, NCCL's, and one that promises */
}

/* Their descriptions say so. */
static void test_ranks_without_room_go_through_nccl(void **state) {
  static const struct {
    const char *way;
    bool full;
    const char *says;
    bool none; /* nothing is to be reserved */
  } cases[] = {{NULL, true, ", NCCL, small exchanges through peers' memory, sums after backward (no room for copies)", false},
               {"after", false, ", NCCL, small exchanges through peers' memory, sums after backward", false},
               {"beside", false, ", NCCL, small exchanges through peers' memory", false},
               {"copies", false, ", NCCL, small exchanges through peers' memory, sums by copies beside backward", false},
               {"copies", false, ", NCCL, small exchanges through peers' memory, sums after backward", true}};
  const size_t before = reserved;
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    no_room = cases[i].full;
    reserved = cases[i].none ? 0 : before;
    open_ranks(2, cases[i].way);
    for (int r = 0; r < 2; ++r) {
      assert_int_equal(ranks[r].cuda.copies != NULL, i == 3);
      assert_string_equal(ranks[r].cuda.description, cases[i].says);
    }
    close_ranks();
  }
  reserved = before;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_sums_are_right_in_any_order),
                                     cmocka_unit_test(test_inboxes_that_are_not_waited_for_show),
                                     cmocka_unit_test(test_a_step_s_own_call_fails), cmocka_unit_test(test_what_is_enqueued),
                                     cmocka_unit_test(test_ranks_without_room_go_through_nccl)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
