/* Ranks that open mailboxes and inboxes in each other's memory (backend/cuda/peers.c, copies.c), on no device: a table of CUDA
 * functions that take the devices' place, in threads that stand for the ranks. Each call fails in turn on one rank: then none has
 * any, nothing is left, and nobody waits for ever. Memory is freed only when nobody has it mapped. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */
#include <pthread.h>

#include "backend/cuda/copies.h"
#include "fail_call.h"

enum { RANKS = 3, PIECES = 64 };

/* ---- the devices ---- */

/* What every rank has allocated. */
typedef struct Piece {
  void *memory;
  int mapped; /* by so many ranks */
} Piece;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Piece pieces[PIECES];
static int freed_while_mapped, unknown;
static bool apart[RANKS], hidden; /* a device that cannot write others'; other devices are not visible */

static _Thread_local int self;

static Piece *find(const void *memory) {
  for (int i = 0; i < PIECES; ++i) {
    if (pieces[i].memory == memory) return &pieces[i];
  }
  ++unknown;
  return &pieces[0];
}

static cudaError_t fake_malloc(void **out, size_t size) {
  const cudaError_t error = meet("cudaMalloc");
  if (error != cudaSuccess) return error;
  (void)pthread_mutex_lock(&lock);
  Piece *piece = find(NULL);
  *out = piece->memory = malloc(size);
  (void)pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

static cudaError_t fake_free(void *p) {
  const cudaError_t error = meet("cudaFree"); /* and yet */
  (void)pthread_mutex_lock(&lock);
  Piece *piece = find(p);
  freed_while_mapped += piece->mapped > 0;
  piece->memory = NULL;
  free(p);
  (void)pthread_mutex_unlock(&lock);
  return error;
}

static cudaError_t fake_memset(void *to, int value, size_t size, cudaStream_t stream) {
  (void)stream;
  memset(to, value, size);
  return meet("cudaMemsetAsync");
}

static cudaError_t fake_synchronize(cudaStream_t stream) {
  (void)stream;
  return meet("cudaStreamSynchronize");
}

static cudaError_t fake_set_device(int device) {
  (void)device;
  return meet("cudaSetDevice");
}

static cudaError_t fake_last_error(void) { return cudaSuccess; }

static cudaError_t fake_bus_id(char *name, int size, int device) {
  (void)snprintf(name, (size_t)size, "%d", device);
  return meet("cudaDeviceGetPCIBusId");
}

static cudaError_t fake_by_bus_id(int *device, const char *name) {
  *device = atoi(name);
  if (hidden && *device != self) return cudaErrorInvalidValue;
  return meet("cudaDeviceGetByPCIBusId");
}

static cudaError_t fake_can_access(int *can, int device, int peer) {
  *can = !apart[device] && device != peer;
  return meet("cudaDeviceCanAccessPeer");
}

static cudaError_t fake_get_handle(cudaIpcMemHandle_t *out, void *p) {
  memcpy(out, &p, sizeof p);
  return meet("cudaIpcGetMemHandle");
}

static cudaError_t fake_open_handle(void **out, cudaIpcMemHandle_t handle, unsigned flags) {
  void *p;
  const cudaError_t error = meet("cudaIpcOpenMemHandle");
  if (flags != cudaIpcMemLazyEnablePeerAccess) return cudaErrorInvalidValue;
  if (error != cudaSuccess) return error;
  memcpy(&p, &handle, sizeof p);
  (void)pthread_mutex_lock(&lock);
  ++find(p)->mapped;
  (void)pthread_mutex_unlock(&lock);
  *out = p;
  return cudaSuccess;
}

static cudaError_t fake_close_handle(void *p) {
  (void)pthread_mutex_lock(&lock);
  --find(p)->mapped;
  (void)pthread_mutex_unlock(&lock);
  return meet("cudaIpcCloseMemHandle");
}

/* Streams and events. */
static int things;
static char thing;

static cudaError_t make_thing(void *out, const char *name) {
  const cudaError_t error = meet(name);
  if (error != cudaSuccess) return error;
  *(void **)out = &thing;
  (void)__atomic_fetch_add(&things, 1, __ATOMIC_RELAXED);
  return cudaSuccess;
}
static cudaError_t fake_stream_create(cudaStream_t *out, unsigned flags) {
  (void)flags;
  return make_thing(out, "cudaStreamCreateWithFlags");
}
static cudaError_t fake_event_create(cudaEvent_t *out, unsigned flags) {
  (void)flags;
  return make_thing(out, "cudaEventCreateWithFlags");
}
static cudaError_t end_thing(const void *p, const char *name) {
  assert_ptr_equal(p, &thing);
  (void)__atomic_fetch_sub(&things, 1, __ATOMIC_RELAXED);
  return meet(name);
}
static cudaError_t fake_stream_destroy(cudaStream_t stream) { return end_thing(stream, "cudaStreamDestroy"); }
static cudaError_t fake_event_destroy(cudaEvent_t event) { return end_thing(event, "cudaEventDestroy"); }

const NitiCudaRuntime niti_cuda_runtime = {.cudaMalloc = fake_malloc,
                                           .cudaFree = fake_free,
                                           .cudaMemsetAsync = fake_memset,
                                           .cudaStreamSynchronize = fake_synchronize,
                                           .cudaSetDevice = fake_set_device,
                                           .cudaGetLastError = fake_last_error,
                                           .cudaDeviceGetPCIBusId = fake_bus_id,
                                           .cudaDeviceGetByPCIBusId = fake_by_bus_id,
                                           .cudaDeviceCanAccessPeer = fake_can_access,
                                           .cudaIpcGetMemHandle = fake_get_handle,
                                           .cudaIpcOpenMemHandle = fake_open_handle,
                                           .cudaIpcCloseMemHandle = fake_close_handle,
                                           .cudaStreamCreateWithFlags = fake_stream_create,
                                           .cudaStreamDestroy = fake_stream_destroy,
                                           .cudaEventCreateWithFlags = fake_event_create,
                                           .cudaEventDestroy = fake_event_destroy};

/* No step is made here. */
void niti_cuda_note(NitiCuda *cuda, cudaError_t error, const char *what) { (void)cuda, (void)error, (void)what; }
void niti_cuda_mailbox_exchange(NitiCuda *cuda, const NitiMailboxes *m, void *data, size_t count, NitiReduction reduction) {
  (void)cuda, (void)m, (void)data, (void)count, (void)reduction;
}
void niti_cuda_mailbox_promise(NitiCuda *cuda, const NitiMailboxes *m, int64_t *sums, size_t count) {
  (void)cuda, (void)m, (void)sums, (void)count;
}
void niti_cuda_add_copies(NitiCuda *cuda, const NitiCopy *sums, int count, const void *inbox, int parts, size_t bytes) {
  (void)cuda, (void)sums, (void)count, (void)inbox, (void)parts, (void)bytes;
}

/* ---- the ranks ---- */

struct NitiRanks {
  int rank;
};

static pthread_barrier_t meeting;
static char shared[RANKS][256];
static int hosts = 1, size = RANKS, meetings; /* meetings: of rank 0 */

int niti_ranks_rank(const NitiRanks *r) { return r->rank; }
int niti_ranks_size(const NitiRanks *r) { return r ? size : 1; }
int niti_ranks_hosts(const NitiRanks *r) { return r ? hosts : 1; }

NitiStatus niti_ranks_gather(NitiRanks *r, void *out, const void *in, size_t bytes) {
  assert_true(bytes <= sizeof shared[0]);
  memcpy(shared[r->rank], in, bytes);
  (void)pthread_barrier_wait(&meeting);
  for (int i = 0; i < RANKS; ++i) memcpy((char *)out + (size_t)i * bytes, shared[i], bytes);
  (void)pthread_barrier_wait(&meeting);
  meetings += r->rank == 0;
  return NITI_OK;
}

/* ---- the cases ---- */

typedef struct Rank {
  pthread_t thread;
  int rank, fail_at; /* the number of the call that fails; 0: none */
  bool drops, opened;
  int calls; /* until it had opened */
  const char *met;
  NitiMailboxes boxes;
  size_t bytes;       /* of gradients */
  char *parts[RANKS]; /* of the others' inboxes: this rank's */
} Rank;

static bool inboxes; /* instead of mailboxes */

static void *run(void *context) {
  static NitiCopies each[RANKS];
  Rank *rank = context;
  NitiRanks ranks = {rank->rank};
  NitiCuda cuda = {.device = rank->rank};
  NitiPeers peers = {.memory = {.open = false}};
  NitiCopies *copies = &each[rank->rank];
  self = rank->rank;
  call_count = 0;
  fail_at = rank->fail_at;
  met = NULL;
  const NitiStatus status =
      inboxes ? niti_copies_open(copies, &cuda, &ranks, rank->bytes) : niti_peers_open(&peers, &cuda, &ranks);
  rank->opened = status == NITI_OK && (inboxes ? copies->inboxes.open : peers.memory.open);
  rank->calls = call_count;
  rank->boxes = peers.boxes;
  for (int to = 0; to < RANKS; ++to)
    rank->parts[to] = rank->opened && inboxes && to != self ? niti_copies_part(copies, to, self) : NULL;
  (void)pthread_barrier_wait(&meeting);
  if (rank->opened && rank->drops && !inboxes) niti_shared_drop(&peers.memory);
  if (rank->opened && !rank->drops && !inboxes) niti_shared_leave(&peers.memory, &cuda, &ranks);
  if (rank->opened && rank->drops && inboxes) niti_copies_drop(copies, &cuda);
  if (rank->opened && !rank->drops && inboxes) niti_copies_leave(copies, &cuda, &ranks);
  rank->met = met;
  return NULL;
}

/* How many ranks have opened. */
static int open_all(Rank ranks[RANKS]) {
  int opened = 0;
  assert_int_equal(pthread_barrier_init(&meeting, NULL, RANKS), 0);
  for (int i = 0; i < RANKS; ++i) ranks[i].rank = i;
  for (int i = 0; i < RANKS; ++i) assert_int_equal(pthread_create(&ranks[i].thread, NULL, run, &ranks[i]), 0);
  for (int i = 0; i < RANKS; ++i) assert_int_equal(pthread_join(ranks[i].thread, NULL), 0);
  (void)pthread_barrier_destroy(&meeting);
  for (int i = 0; i < RANKS; ++i) opened += ranks[i].opened;
  assert_true(freed_while_mapped == 0 && unknown == 0 && things == 0);
  return opened;
}

/* Pieces that are there still; frees them. */
static int left(void) {
  int count = 0;
  for (int i = 0; i < PIECES; ++i) {
    assert_int_equal(pieces[i].mapped, 0);
    count += pieces[i].memory != NULL;
    free(pieces[i].memory);
    pieces[i].memory = NULL;
  }
  return count;
}

static void test_ranks_see_the_same_mailboxes(void **state) {
  (void)state;
  for (int i = 0; i < 2; ++i) {
    Rank ranks[RANKS] = {{0}};
    hidden = i > 0; /* each rank sees its own device alone */
    assert_int_equal(open_all(ranks), RANKS);
    for (int a = 0; a < RANKS; ++a) {
      assert_true(ranks[a].boxes.rank == a && ranks[a].boxes.ranks == RANKS);
      for (int b = 0; b < RANKS; ++b) {
        assert_ptr_equal(ranks[a].boxes.of[b], ranks[b].boxes.of[b]);
        assert_true((a == b) == (ranks[a].boxes.number == ranks[b].boxes.number));
      }
    }
    assert_int_equal(left(), 0);
  }
  hidden = false;
}

/* No two parts of an inbox overlap. */
static void test_ranks_have_parts_of_inboxes(void **state) {
  Rank ranks[RANKS] = {{.bytes = 1000}, {.bytes = 1000}, {.bytes = 1000}};
  (void)state;
  inboxes = true;
  assert_int_equal(open_all(ranks), RANKS);
  for (int to = 0; to < RANKS; ++to) {
    const char *a = ranks[(to + 1) % RANKS].parts[to], *b = ranks[(to + 2) % RANKS].parts[to];
    assert_true(a && b && (a < b ? b - a : a - b) >= 1000 && (uintptr_t)a % 16 == (uintptr_t)b % 16);
  }
  assert_int_equal(left(), 0);
  ranks[2].bytes = 2000; /* ranks that do not agree */
  assert_int_equal(open_all(ranks), 0);
  assert_int_equal(left(), 0);
  inboxes = false;
}

static void each_call_fails(void) {
  Rank counted[RANKS] = {{0}};
  assert_int_equal(open_all(counted), RANKS);
  assert_int_equal(left(), 0);
  for (int r = 0; r < RANKS; ++r) {
    for (int at = 1; at <= counted[r].calls; ++at) {
      Rank ranks[RANKS] = {{0}};
      ranks[r].fail_at = at;
      const int opened = open_all(ranks);
      assert_non_null(ranks[r].met);
      /* A device that is not found among the visible ones may still be reached. */
      const int expected = strcmp(ranks[r].met, "cudaDeviceGetByPCIBusId") == 0 ? RANKS : 0;
      if (opened != expected) fail_msg("%s fails on rank %d: %d ranks opened", ranks[r].met, r, opened);
      assert_int_equal(left(), 0);
    }
  }
}

static void test_a_call_that_fails_leaves_none_with_mailboxes(void **state) {
  (void)state;
  each_call_fails();
  inboxes = true;
  each_call_fails();
  inboxes = false;
}

static void closing_goes_on(void) {
  Rank counted[RANKS] = {{0}};
  assert_int_equal(open_all(counted), RANKS);
  for (int at = 1; at <= 5; ++at) { /* of closing */
    Rank ranks[RANKS] = {{0}};
    ranks[1].fail_at = counted[1].calls + at;
    assert_int_equal(open_all(ranks), RANKS);
    assert_non_null(ranks[1].met);
    assert_int_equal(left(), 0);
  }
}

static void test_closing_goes_on_where_a_call_fails(void **state) {
  (void)state;
  closing_goes_on();
  inboxes = true;
  closing_goes_on();
  inboxes = false;
}

static void test_ranks_that_cannot_have_mailboxes_do_without(void **state) {
  (void)state;
  Rank ranks[RANKS] = {{0}};
  apart[1] = true;
  assert_int_equal(open_all(ranks), 0);
  assert_int_equal(left(), 0);
  apart[1] = false;
  meetings = 0;
  hosts = 2;
  assert_int_equal(open_all(ranks), 0);
  hosts = 1;
  size = NITI_MAILBOX_RANKS + 1;
  assert_int_equal(open_all(ranks), 0);
  size = RANKS;
  assert_true(meetings == 0 && left() == 0);
}

/* A rank that fails by itself closes while the others are at work: it waits for nobody, and frees nothing that they may write to.
 */
static void test_a_rank_that_drops_waits_for_nobody_and_keeps_its_memory(void **state) {
  (void)state;
  Rank ranks[RANKS] = {{.drops = true}, {.drops = true}, {.drops = true}};
  meetings = 0;
  assert_int_equal(open_all(ranks), RANKS);
  assert_int_equal(meetings, 2); /* those of opening */
  assert_int_equal(left(), RANKS);
  inboxes = true;
  assert_int_equal(open_all(ranks), RANKS);
  assert_int_equal(meetings, 4);
  assert_int_equal(left(), RANKS);
  inboxes = false;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_ranks_see_the_same_mailboxes),
                                     cmocka_unit_test(test_ranks_have_parts_of_inboxes),
                                     cmocka_unit_test(test_a_call_that_fails_leaves_none_with_mailboxes),
                                     cmocka_unit_test(test_closing_goes_on_where_a_call_fails),
                                     cmocka_unit_test(test_ranks_that_cannot_have_mailboxes_do_without),
                                     cmocka_unit_test(test_a_rank_that_drops_waits_for_nobody_and_keeps_its_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
