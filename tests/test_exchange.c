/* What ranks with CUDA devices exchange by: the settings, sums that are joined, and the mailboxes' protocol, which threads run
 * here in ordinary memory as blocks do on devices. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "backend/cuda/exchange.h"
#include "backend/cuda/mailbox.h"
#include "splitmix.h"

/* ---- settings ---- */

static void test_settings(void **state) {
  static const struct {
    const char *sums, *small;
    NitiSumsWay way;
    bool peers;
  } cases[] = {
      {NULL, NULL, NITI_SUMS_COPIES, true},
      {"copies", "peers", NITI_SUMS_COPIES, true},
      {"after", NULL, NITI_SUMS_AFTER, true},
      {"beside", NULL, NITI_SUMS_BESIDE, true},
      {"beside", "nccl", NITI_SUMS_BESIDE, false},
      {"after", "nccl", NITI_SUMS_AFTER, false},
      {NULL, "nccl", NITI_SUMS_AFTER, false},
      {"copies", "nccl", NITI_SUMS_AFTER, false}, /* copies go through peers' memory */
  };
  NitiExchangeSettings s = {NITI_SUMS_BESIDE, false};
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    assert_int_equal(niti_exchange_settings(&s, cases[i].sums, cases[i].small), NITI_OK);
    assert_int_equal(s.sums, cases[i].way);
    assert_int_equal(s.peers, cases[i].peers);
  }
  assert_int_equal(niti_exchange_settings(&s, "After", NULL), NITI_ERROR_ARGUMENT);
  assert_string_equal(niti_error(), "NITI_CUDA_SUMS is 'After' (expected copies, after or beside)");
  assert_int_equal(niti_exchange_settings(&s, NULL, "peer"), NITI_ERROR_ARGUMENT);
  assert_string_equal(niti_error(), "NITI_CUDA_SMALL is 'peer' (expected peers or nccl)");
  assert_int_equal(niti_exchange_settings(&s, "after ", NULL), NITI_ERROR_ARGUMENT);
}

/* ---- sums ---- */

static void test_sums_that_adjoin_are_joined(void **state) {
  (void)state;
  static int64_t memory[100];
  NitiSums sums = {0};
  int32_t *narrow = (int32_t *)(void *)memory;
  const NitiSum given[] = {
      {narrow, 10, NITI_REDUCE_SUM_S32},      {narrow + 10, 6, NITI_REDUCE_SUM_S32}, /* behind the one before it */
      {memory + 8, 4, NITI_REDUCE_SUM_S64},                                          /* adjoins, of another type */
      {memory + 40, 5, NITI_REDUCE_SUM_S64},  {memory + 38, 2, NITI_REDUCE_SUM_S64}, /* in front of the one before it */
      {memory + 46, 1, NITI_REDUCE_SUM_S64},                                         /* a gap of one */
      {narrow + 200, 1, NITI_REDUCE_SUM_S32},
  };
  const NitiSum expected[] = {{narrow, 16, NITI_REDUCE_SUM_S32},
                              {memory + 8, 4, NITI_REDUCE_SUM_S64},
                              {memory + 38, 7, NITI_REDUCE_SUM_S64},
                              {memory + 46, 1, NITI_REDUCE_SUM_S64},
                              {narrow + 200, 1, NITI_REDUCE_SUM_S32}};
  for (size_t i = 0; i < sizeof given / sizeof *given; ++i) assert_true(niti_sums_add(&sums, given[i]));
  assert_int_equal(sums.count, sizeof expected / sizeof *expected);
  for (int i = 0; i < sums.count; ++i) {
    assert_ptr_equal(sums.of[i].data, expected[i].data);
    assert_int_equal(sums.of[i].count, expected[i].count);
    assert_int_equal(sums.of[i].reduction, expected[i].reduction);
  }
}

static void test_sums_have_an_end(void **state) {
  (void)state;
  static int64_t memory[2 * NITI_SUMS_MAX + 2];
  NitiSums sums = {0};
  for (int i = 0; i < NITI_SUMS_MAX; ++i) assert_true(niti_sums_add(&sums, (NitiSum){memory + 2 * i, 1, NITI_REDUCE_SUM_S64}));
  assert_false(niti_sums_add(&sums, (NitiSum){memory + 2 * NITI_SUMS_MAX, 1, NITI_REDUCE_SUM_S64}));
  assert_true(niti_sums_add(&sums, (NitiSum){memory + 2 * NITI_SUMS_MAX - 1, 1, NITI_REDUCE_SUM_S64})); /* adjoins the last */
  assert_int_equal(sums.count, NITI_SUMS_MAX);
}

/* ---- mailboxes ---- */

static void test_numbers_alternate_and_are_never_zero(void **state) {
  (void)state;
  assert_true(niti_mailbox_next(0) == 1 && niti_mailbox_next(1) == 2);
  for (uint32_t number = UINT32_MAX - 5, i = 0; i < 10; ++i) {
    const uint32_t next = niti_mailbox_next(number);
    assert_true(next != 0 && next % 2 != number % 2);
    number = next;
  }
}

static void test_what_a_mailbox_takes(void **state) {
  (void)state;
  assert_true(niti_mailbox_takes(1, NITI_REDUCE_MAX_U32) && niti_mailbox_takes(3 * 2048, NITI_REDUCE_SUM_S64));
  assert_false(niti_mailbox_takes(0, NITI_REDUCE_MAX_U32) || niti_mailbox_takes(0, NITI_REDUCE_SUM_S64));
  assert_false(niti_mailbox_takes(3 * 2048 + 1, NITI_REDUCE_SUM_S64) || niti_mailbox_takes(SIZE_MAX, NITI_REDUCE_SUM_S64));
  assert_false(niti_mailbox_takes(1, NITI_REDUCE_SUM_S32) || niti_mailbox_takes(1, NITI_REDUCE_MAX_S64));
}

/* Ranks of several lanes each, which stand for the threads of a block: lane l has elements l, l + lanes, ... Where a kernel ends
 * and the next one begins, a rank's lanes wait for each other. */
enum { RANKS_MOST = 5, LANES_MOST = 3, COUNT_MOST = 48, HANGS = 120 /* seconds */ };
/* Threads that wait let everything else go first: with the thread sanitizer and on a busy machine, for hours. */
#ifdef __SANITIZE_THREAD__
enum { FEWER = 10 };
#else
enum { FEWER = 1 };
#endif

typedef struct Rank {
  NitiMailboxes m;
  pthread_barrier_t ends;
  int64_t data[COUNT_MOST];
  int64_t inbox[2][RANKS_MOST][COUNT_MOST]; /* what others have written, by the parity of the exchange that promises it */
} Rank;

typedef struct World {
  int ranks, lanes, exchanges, lag; /* lag: a rank is held up once in so many exchanges */
  uint32_t before;                  /* the number of the exchange before the first */
  bool promises;                    /* each exchange promises what was written into inboxes before it */
  Rank of[RANKS_MOST];
  int wrong; /* exchanges with a wrong result; atomic */
} World;

typedef struct Lane {
  World *world;
  int rank, lane;
  pthread_t thread;
} Lane;

static uint64_t splitmix_at(uint64_t stream, uint64_t i) {
  uint64_t state = stream << 56 ^ i;
  return splitmix64(&state);
}

/* What all ranks know of an exchange. */
static NitiReduction reduction_of(int exchange) {
  return splitmix_at(1, (uint64_t)exchange) % 3 ? NITI_REDUCE_MAX_U32 : NITI_REDUCE_SUM_S64;
}

static size_t count_of(int exchange) {
  return splitmix_at(2, (uint64_t)exchange) % 4 ? 1 : 1 + splitmix_at(3, (uint64_t)exchange) % COUNT_MOST;
}

/* A rank's value; of a sum below 2^60 in magnitude. */
static int64_t value_of(int rank, int exchange, size_t i) {
  const uint64_t word = splitmix_at(5 + (uint64_t)rank, (uint64_t)exchange * COUNT_MOST + i);
  return reduction_of(exchange) == NITI_REDUCE_MAX_U32 ? (int64_t)(word >> 32) : (int64_t)(word >> 3) - ((int64_t)1 << 60);
}

static int64_t result_of(const World *w, int exchange, size_t i) {
  int64_t result = value_of(0, exchange, i);
  for (int r = 1; r < w->ranks; ++r) {
    const int64_t value = value_of(r, exchange, i);
    if (reduction_of(exchange) == NITI_REDUCE_MAX_U32)
      result = value > result ? value : result;
    else
      result += value;
  }
  return result;
}

static void set(Rank *r, size_t i, int64_t value, NitiReduction reduction) {
  if (reduction == NITI_REDUCE_MAX_U32)
    ((uint32_t *)(void *)r->data)[i] = (uint32_t)value;
  else
    r->data[i] = value;
}

static int64_t get(const Rank *r, size_t i, NitiReduction reduction) {
  return reduction == NITI_REDUCE_MAX_U32 ? (int64_t)((const uint32_t *)(const void *)r->data)[i] : r->data[i];
}

/* A protocol that is wrong may wait for ever. */
static void pause_lane(time_t begun) {
  (void)sched_yield();
  if (time(NULL) - begun < HANGS) return;
  print_error("an exchange has not ended in %d seconds\n", HANGS);
  abort();
}

/* What a rank writes into another's inbox. */
static int64_t written(int from, int to, int exchange, size_t i) {
  return (int64_t)splitmix_at(20 + (uint64_t)(from * RANKS_MOST + to), (uint64_t)exchange * COUNT_MOST + i);
}

static void write_inboxes(World *w, const Lane *lane, int e) {
  for (int to = 0; to < w->ranks; ++to) {
    for (size_t i = (size_t)lane->lane; to != lane->rank && i < COUNT_MOST; i += (size_t)w->lanes)
      w->of[to].inbox[e % 2][lane->rank][i] = written(lane->rank, to, e, i);
  }
}

static void read_inbox(World *w, const Lane *lane, int e) {
  for (int from = 0; from < w->ranks; ++from) {
    for (size_t i = (size_t)lane->lane; from != lane->rank && i < COUNT_MOST; i += (size_t)w->lanes) {
      if (w->of[lane->rank].inbox[e % 2][from][i] != written(from, lane->rank, e, i))
        (void)__atomic_fetch_add(&w->wrong, 1, __ATOMIC_RELAXED);
    }
  }
}

static void *run_lane(void *context) {
  const Lane *lane = context;
  World *w = lane->world;
  Rank *r = &w->of[lane->rank];
  const size_t step = (size_t)w->lanes;
  uint32_t number = w->before;
  for (int e = 0; e < w->exchanges; ++e) {
    const NitiReduction reduction = reduction_of(e);
    const size_t count = count_of(e), first = (size_t)lane->lane;
    number = niti_mailbox_next(number);
    for (size_t i = first; i < count; i += step) set(r, i, value_of(lane->rank, e, i), reduction);
    const bool late = w->lag > 0 && splitmix_at(4, (uint64_t)e * RANKS_MOST + (uint64_t)lane->rank) % (uint64_t)w->lag == 0;
    for (int k = 0; late && k < 20; ++k) (void)sched_yield();
    if (w->promises) {
      write_inboxes(w, lane, e);
      (void)pthread_barrier_wait(&r->ends);
    }
    for (size_t i = first; i < count; i += step) niti_mailbox_put(&r->m, number, r->data, count, i, reduction, w->promises);
    for (int k = 0; late && k < 20; ++k) (void)sched_yield(); /* the others may be an exchange ahead by now */
    const time_t begun = time(NULL);
    for (size_t i = first; i < count; i += step) {
      while (!niti_mailbox_take(&r->m, number, r->data, count, i, reduction, w->promises)) pause_lane(begun);
    }
    for (size_t i = first; i < count; i += step) {
      if (get(r, i, reduction) != result_of(w, e, i)) (void)__atomic_fetch_add(&w->wrong, 1, __ATOMIC_RELAXED);
    }
    (void)pthread_barrier_wait(&r->ends); /* of one lane, too: it orders memory */
    if (w->promises) read_inbox(w, lane, e);
  }
  return NULL;
}

static void open_world(World *w) {
  uint64_t *boxes[RANKS_MOST];
  for (int r = 0; r < w->ranks; ++r) {
    boxes[r] = calloc(1, niti_mailbox_bytes(w->ranks));
    assert_non_null(boxes[r]);
  }
  for (int r = 0; r < w->ranks; ++r) {
    w->of[r].m = (NitiMailboxes){.rank = r, .ranks = w->ranks};
    for (int k = 0; k < w->ranks; ++k) w->of[r].m.of[k] = boxes[k];
    assert_int_equal(pthread_barrier_init(&w->of[r].ends, NULL, (unsigned)w->lanes), 0);
  }
}

/* Every word is taken and cleared in the end. */
static void close_world(World *w) {
  for (int r = 0; r < w->ranks; ++r) {
    for (size_t i = 0; i < niti_mailbox_bytes(w->ranks) / sizeof(uint64_t); ++i) assert_true(w->of[r].m.of[r][i] == 0);
    free(w->of[r].m.of[r]);
    (void)pthread_barrier_destroy(&w->of[r].ends);
  }
}

static void exchange(World w) {
  Lane lanes[RANKS_MOST * LANES_MOST];
  int count = 0;
  w.exchanges /= FEWER;
  open_world(&w);
  for (int r = 0; r < w.ranks; ++r) {
    for (int l = 0; l < w.lanes; ++l) lanes[count++] = (Lane){.world = &w, .rank = r, .lane = l};
  }
  for (int i = 0; i < count; ++i) assert_int_equal(pthread_create(&lanes[i].thread, NULL, run_lane, &lanes[i]), 0);
  for (int i = 0; i < count; ++i) assert_int_equal(pthread_join(lanes[i].thread, NULL), 0);
  close_world(&w);
  assert_int_equal(w.wrong, 0);
}

static void test_two_ranks_exchange(void **state) {
  (void)state;
  exchange((World){.ranks = 2, .lanes = 1, .exchanges = 100000});
}

static void test_ranks_that_are_late_exchange(void **state) {
  (void)state;
  exchange((World){.ranks = 3, .lanes = 1, .exchanges = 30000, .lag = 3});
  exchange((World){.ranks = 5, .lanes = 1, .exchanges = 5000, .lag = 7, .before = UINT32_MAX - 200});
}

static void test_ranks_of_several_threads_exchange(void **state) {
  (void)state;
  exchange((World){.ranks = 3, .lanes = 3, .exchanges = 5000, .lag = 5});
}

/* Of ordinary memory, which no thread may read while another writes it (SANITIZE=thread sees that). An inbox is written again two
 * exchanges later, and was read before the one between. */
static void test_exchanges_keep_what_they_promise(void **state) {
  (void)state;
  exchange((World){.ranks = 2, .lanes = 1, .exchanges = 20000, .promises = true});
  exchange((World){.ranks = 4, .lanes = 2, .exchanges = 4000, .lag = 5, .promises = true});
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_settings),
                                     cmocka_unit_test(test_sums_that_adjoin_are_joined),
                                     cmocka_unit_test(test_sums_have_an_end),
                                     cmocka_unit_test(test_numbers_alternate_and_are_never_zero),
                                     cmocka_unit_test(test_what_a_mailbox_takes),
                                     cmocka_unit_test(test_two_ranks_exchange),
                                     cmocka_unit_test(test_ranks_that_are_late_exchange),
                                     cmocka_unit_test(test_ranks_of_several_threads_exchange),
                                     cmocka_unit_test(test_exchanges_keep_what_they_promise)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
