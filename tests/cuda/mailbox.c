/* Mailboxes (backend/cuda/mailbox.cu) on one device: backends with a stream each stand for ranks, whose kernels run at the same
 * time; enqueued one by one, and recorded and replayed. Results are computed here from what was uploaded. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cuda/peers.h"
#include "splitmix.h"

enum { RANKS = 3, MOST = 3 * 2048 };

typedef struct Rank {
  NitiBackend *backend;
  NitiMailboxes boxes;
  uint32_t *maximum;
  int64_t *sums;
  void *recordings;
} Rank;

static Rank ranks[RANKS];
static size_t count; /* of sums */

static void *memory(NitiBackend *b, size_t bytes) {
  void *p = NULL;
  if (b->ops->alloc(b, &p, bytes) != NITI_OK) fail_msg("%s", niti_error());
  return p;
}

static int open_ranks(void **state) {
  (void)state;
  for (int r = 0; r < RANKS; ++r) {
    const NitiBackendOptions options = {.name = "cuda:0"};
    Rank *rank = &ranks[r];
    if (niti_backend_open(&rank->backend, &options) != NITI_OK) return getenv("NITI_TEST_GPU") ? -1 : 0;
    rank->boxes.rank = r;
    rank->boxes.ranks = RANKS;
    rank->boxes.of[r] = memory(rank->backend, niti_mailbox_bytes(RANKS));
    rank->boxes.number = memory(rank->backend, sizeof(uint32_t));
    rank->maximum = memory(rank->backend, sizeof(uint32_t));
    rank->sums = memory(rank->backend, MOST * sizeof(int64_t));
    assert_int_equal(rank->backend->ops->synchronise(rank->backend), NITI_OK);
  }
  for (int r = 0; r < RANKS; ++r) {
    for (int k = 0; k < RANKS; ++k) ranks[r].boxes.of[k] = ranks[k].boxes.of[k];
  }
  return 0;
}

static int close_ranks(void **state) {
  (void)state;
  for (int r = 0; r < RANKS && ranks[RANKS - 1].backend; ++r) {
    NitiBackend *b = ranks[r].backend;
    if (ranks[r].recordings) b->kernels->close_recordings(b, ranks[r].recordings);
    void *all[] = {ranks[r].boxes.of[r], ranks[r].boxes.number, ranks[r].maximum, ranks[r].sums};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i) b->ops->release(b, all[i]);
  }
  for (int r = 0; r < RANKS; ++r) niti_backend_close(ranks[r].backend);
  return 0;
}

static void skip_without_device(void) {
  if (ranks[RANKS - 1].backend) return;
  print_message("skipped: no CUDA device\n");
  skip();
}

static void exchange(void *context) {
  Rank *r = context;
  NitiCuda *cuda = niti_cuda(r->backend);
  niti_cuda_mailbox_exchange(cuda, &r->boxes, r->maximum, 1, NITI_REDUCE_MAX_U32);
  if (count % 2)
    niti_cuda_mailbox_promise(cuda, &r->boxes, r->sums, count);
  else
    niti_cuda_mailbox_exchange(cuda, &r->boxes, r->sums, count, NITI_REDUCE_SUM_S64);
}

/* One maximum and one vector of sums, on all ranks at once. */
static void try_once(uint64_t *dice, bool replayed) {
  static int64_t values[RANKS][MOST], expected[MOST], found[MOST];
  uint32_t most = 0, maxima[RANKS], back;
  memset(expected, 0, sizeof expected);
  for (int r = 0; r < RANKS; ++r) {
    maxima[r] = (uint32_t)(splitmix64(dice) >> 32);
    most = maxima[r] > most ? maxima[r] : most;
    for (size_t i = 0; i < count; ++i) expected[i] += values[r][i] = (int64_t)splitmix64(dice) >> 3;
  }
  for (int r = 0; r < RANKS; ++r) {
    NitiBackend *b = ranks[r].backend;
    b->ops->upload(b, ranks[r].maximum, &maxima[r], sizeof maxima[r]);
    b->ops->upload(b, ranks[r].sums, values[r], count * sizeof(int64_t));
  }
  for (int r = 0; r < RANKS; ++r) {
    const NitiRecordingKey key = {.end = 100, .batch = (int32_t)count};
    if (!replayed)
      exchange(&ranks[r]);
    else if (ranks[r].backend->kernels->replay(ranks[r].backend, &ranks[r].recordings, &key, exchange, &ranks[r]) != NITI_OK)
      fail_msg("%s", niti_error());
  }
  for (int r = 0; r < RANKS; ++r) {
    NitiBackend *b = ranks[r].backend;
    b->ops->download(b, &back, ranks[r].maximum, sizeof back);
    b->ops->download(b, found, ranks[r].sums, count * sizeof(int64_t));
    if (b->ops->synchronise(b) != NITI_OK) fail_msg("%s", niti_error());
    assert_int_equal(back, most);
    assert_memory_equal(found, expected, count * sizeof(int64_t));
  }
}

static void test_exchanges(void **state) {
  static const size_t counts[] = {1, 3, 31, 32, 33, 1023, 1024, 1025, 1536, MOST};
  uint64_t dice = 1;
  (void)state;
  skip_without_device();
  for (size_t i = 0; i < 200; ++i) {
    count = counts[i % (sizeof counts / sizeof *counts)];
    try_once(&dice, false);
  }
}

static void test_recorded_exchanges_go_on_counting(void **state) {
  static const size_t counts[] = {1, 192, 1536};
  uint64_t dice = 2;
  (void)state;
  skip_without_device();
  for (size_t i = 0; i < 300; ++i) { /* in turns with exchanges that are not recorded */
    count = counts[i % (sizeof counts / sizeof *counts)];
    try_once(&dice, i % 7 != 0);
  }
}

int main(void) {
  (void)setenv("CUDA_MODULE_LOADING", "EAGER",
               1); /* loading a kernel may wait for those that run, which wait for each other here */
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_exchanges), cmocka_unit_test(test_recorded_exchanges_go_on_counting)};
  return cmocka_run_group_tests(tests, open_ranks, close_ranks);
}
