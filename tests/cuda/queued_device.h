/* CUDA, NCCL and the ranks on no device: what is asked of a rank's two streams is enqueued there, for the test to do in the
 * orders that it draws. It takes the place of backend/cuda/runtime.c and of what copies.c and together.c need beside it. Include
 * cmocka before it, once in a program. */
#ifndef NITI_TESTS_CUDA_QUEUED_DEVICE_H
#define NITI_TESTS_CUDA_QUEUED_DEVICE_H

#include "backend/cuda/copies.h"
#include "backend/cuda/nccl.h"
#include "fail_call.h"
#include "platform/environment.h"

enum { RANKS_MOST = 4, WORK_MOST = 4096, EVENTS = 16, EXCHANGES_MOST = 1024 };

/* ---- streams: work that is done piece by piece ---- */

typedef enum Kind { COPY, CLEAR, FILL, ADD, CHECK, WAIT, EXCHANGE } Kind;

typedef struct Stream Stream;
typedef struct Work {
  Kind kind;
  char *to;
  const char *from; /* COPY; ADD: the inbox */
  size_t bytes, done;
  const Stream *stream; /* WAIT: until so much of its work has been done */
  int until, number, step;
  int64_t *values; /* EXCHANGE: of so many bytes */
  NitiCopy sum;
  int parts;
  size_t part;
} Work;

struct Stream {
  int rank, count, done;
  Work work[WORK_MOST];
};

typedef struct Event {
  const Stream *stream;
  int count;
} Event;

/* What ranks have sent in an exchange, and how many have. */
typedef struct Meeting {
  int sent;
  bool here[RANKS_MOST];
  int64_t *of[RANKS_MOST];
  size_t bytes;
} Meeting;

static Stream streams[RANKS_MOST][2]; /* the backend's, and the one beside it */
static Event events[EVENTS];
static Meeting meetings[EXCHANGES_MOST];
static int self, size; /* the rank whose calls are made, and how many there are */
static int event_count, opened, exchanges[RANKS_MOST], copies_made;
static const char *sums_way;
static bool no_room;
static int victim = -1; /* the rank whose steps' call number fail_at fails; -1: none does */

static Work *enqueue(cudaStream_t stream, Kind kind) {
  Stream *s = (Stream *)(void *)stream;
  assert_true(s->count < WORK_MOST);
  Work *w = &s->work[s->count++];
  *w = (Work){.kind = kind};
  return w;
}

/* ---- CUDA ---- */

/* Of the calls that a step makes. */
static bool is_refused(const char *name) { return self == victim && fails(name); }

static cudaError_t fake_set_device(int device) { return device == self ? cudaSuccess : cudaErrorInvalidDevice; }
static cudaError_t fake_last_error(void) { return cudaSuccess; }

static cudaError_t fake_stream_create(cudaStream_t *out, unsigned flags) {
  assert_int_equal(flags, cudaStreamNonBlocking);
  *out = (cudaStream_t)(void *)&streams[self][1];
  ++opened;
  return cudaSuccess;
}
static cudaError_t fake_stream_destroy(cudaStream_t stream) {
  assert_ptr_equal(stream, &streams[self][1]);
  --opened;
  return cudaSuccess;
}
static cudaError_t fake_synchronize(cudaStream_t stream) {
  const Stream *s = (const Stream *)(const void *)stream;
  assert_true(victim >= 0 || s->done == s->count);
  return cudaSuccess;
}
static cudaError_t fake_event_create(cudaEvent_t *out, unsigned flags) {
  (void)flags;
  *out = (cudaEvent_t)(void *)&events[event_count++];
  ++opened;
  return cudaSuccess;
}
static cudaError_t fake_event_destroy(cudaEvent_t event) {
  assert_non_null(event);
  --opened;
  return cudaSuccess;
}
static cudaError_t fake_record(cudaEvent_t event, cudaStream_t stream) {
  const Stream *s = (const Stream *)(const void *)stream;
  if (is_refused("cudaEventRecord")) return cudaErrorUnknown;
  *(Event *)(void *)event = (Event){s, s->count};
  return cudaSuccess;
}
static cudaError_t fake_wait(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  const Event *e = (const Event *)(const void *)event;
  assert_int_equal(flags, 0);
  if (is_refused("cudaStreamWaitEvent")) return cudaErrorUnknown;
  Work *w = enqueue(stream, WAIT);
  w->stream = e->stream;
  w->until = e->count;
  return cudaSuccess;
}
static cudaError_t fake_copy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  assert_int_equal(kind, cudaMemcpyDeviceToDevice);
  assert_ptr_equal(stream, &streams[self][1]);
  if (is_refused("cudaMemcpyAsync")) return cudaErrorUnknown;
  Work *w = enqueue(stream, COPY);
  w->to = to;
  w->from = from;
  w->bytes = bytes;
  ++copies_made;
  return cudaSuccess;
}
static cudaError_t fake_clear(void *to, int value, size_t bytes, cudaStream_t stream) {
  assert_int_equal(value, 0);
  if (is_refused("cudaMemsetAsync")) return cudaErrorUnknown;
  Work *w = enqueue(stream, CLEAR);
  w->to = to;
  w->bytes = bytes;
  return cudaSuccess;
}

const NitiCudaRuntime niti_cuda_runtime = {.cudaSetDevice = fake_set_device,
                                           .cudaGetLastError = fake_last_error,
                                           .cudaStreamCreateWithFlags = fake_stream_create,
                                           .cudaStreamDestroy = fake_stream_destroy,
                                           .cudaStreamSynchronize = fake_synchronize,
                                           .cudaStreamWaitEvent = fake_wait,
                                           .cudaEventCreateWithFlags = fake_event_create,
                                           .cudaEventDestroy = fake_event_destroy,
                                           .cudaEventRecord = fake_record,
                                           .cudaMemcpyAsync = fake_copy,
                                           .cudaMemsetAsync = fake_clear};

void niti_cuda_note(NitiCuda *cuda, cudaError_t error, const char *what) {
  if (error != cudaSuccess && self != victim) fail_msg("%s", what);
  if (cuda->error == cudaSuccess) cuda->error = error;
}

/* ---- kernels, and NCCL ---- */

/* After a failure no kernel is launched, here as below (backend/cuda/device.cuh). */
static void enqueue_exchange(NitiCuda *cuda, void *values, size_t bytes) {
  if (cuda->error != cudaSuccess) return;
  Work *w = enqueue(cuda->stream, EXCHANGE);
  assert_true(exchanges[self] < EXCHANGES_MOST);
  w->values = values;
  w->bytes = bytes;
  w->number = exchanges[self]++;
}

void niti_cuda_mailbox_exchange(NitiCuda *cuda, const NitiMailboxes *m, void *data, size_t count, NitiReduction reduction) {
  assert_int_equal(m->rank, self);
  assert_true(niti_mailbox_takes(count, reduction));
  enqueue_exchange(cuda, reduction == NITI_REDUCE_SUM_S64 ? data : NULL, reduction == NITI_REDUCE_SUM_S64 ? 8 * count : 0);
}

void niti_cuda_mailbox_promise(NitiCuda *cuda, const NitiMailboxes *m, int64_t *sums, size_t count) {
  niti_cuda_mailbox_exchange(cuda, m, sums, count, NITI_REDUCE_SUM_S64);
}

void niti_cuda_add_copies(NitiCuda *cuda, const NitiCopy *sums, int count, const void *inbox, int parts, size_t bytes) {
  for (int i = 0; i < count && cuda->error == cudaSuccess; ++i) {
    Work *w = enqueue(cuda->stream, ADD);
    w->sum = sums[i];
    w->bytes = sums[i].bytes;
    w->from = inbox;
    w->parts = parts;
    w->part = bytes;
  }
}

void niti_cuda_add_metrics(NitiCuda *cuda) { (void)cuda; }

NitiNccl *niti_nccl_load(void) { return (NitiNccl *)(void *)&opened; }
void niti_nccl_close(NitiNccl *n) { (void)n; }
NitiStatus niti_nccl_connect(NitiCuda *cuda, NitiRanks *ranks, NitiNccl *n) {
  (void)cuda, (void)ranks, (void)n;
  return NITI_OK;
}
/* Sums of 64 bits alone: the others in these tests do not come here. */
void niti_nccl_reduce(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  assert_int_equal(reduction, NITI_REDUCE_SUM_S64);
  enqueue_exchange(cuda, data, 8 * count);
}
void niti_nccl_sum(NitiCuda *cuda, const NitiSums *sums) {
  for (int i = 0; i < sums->count; ++i) niti_nccl_reduce(cuda, sums->of[i].data, sums->of[i].count, sums->of[i].reduction);
}
void niti_nccl_begin_beside(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  niti_nccl_reduce(cuda, data, count, reduction);
}
void niti_nccl_end_beside(NitiCuda *cuda) { (void)cuda; }

/* ---- ranks ---- */

int niti_ranks_rank(const NitiRanks *r) { return r ? self : 0; }
int niti_ranks_size(const NitiRanks *r) { return r ? size : 1; }
NitiStatus niti_ranks_agree(NitiRanks *r, NitiStatus status) { return r ? status : NITI_OK; }
NitiStatus niti_ranks_check(const NitiRanks *r) { return r ? NITI_OK : NITI_ERROR_ARGUMENT; }
void niti_ranks_reduce(NitiRanks *r, void *data, size_t count, NitiReduction reduction) {
  (void)r, (void)data, (void)count, (void)reduction;
}
void niti_ranks_begin(NitiRanks *r, void *data, size_t count, NitiReduction reduction) {
  (void)r, (void)data, (void)count, (void)reduction;
}
void niti_ranks_end(NitiRanks *r) { (void)r; }
void niti_facts_add(NitiFacts *facts, const char *name, const char *value) { (void)facts, (void)name, (void)value; }
NitiStatus niti_ranks_compare(NitiRanks *r, NitiFacts *facts) { return r && facts ? NITI_OK : NITI_ERROR_ARGUMENT; }
const char *niti_environment_get(const char *name) { return strcmp(name, NITI_SUMS_VARIABLE) == 0 ? sums_way : NULL; }
void niti_environment_host(char *name, size_t room) { memset(name, 0, room); }

static void *memories[RANKS_MOST]; /* inboxes */

NitiStatus niti_shared_open(NitiShared *shared, NitiCuda *cuda, NitiRanks *ranks, size_t bytes, bool able) {
  (void)cuda, (void)ranks;
  *shared = (NitiShared){.open = able && !no_room, .rank = self, .ranks = size};
  if (!shared->open) return NITI_OK;
  if (!memories[self]) memories[self] = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(memories[self], 0, bytes);
  return NITI_OK;
}
void niti_shared_leave(NitiShared *shared, NitiCuda *cuda, NitiRanks *ranks) {
  (void)cuda, (void)ranks;
  memset(shared, 0, sizeof *shared);
}
void niti_shared_drop(NitiShared *shared) { memset(shared, 0, sizeof *shared); }
NitiStatus niti_peers_open(NitiPeers *peers, NitiCuda *cuda, NitiRanks *ranks) {
  (void)cuda, (void)ranks;
  peers->memory = (NitiShared){.open = true, .rank = self, .ranks = size};
  peers->boxes.rank = self;
  return NITI_OK;
}

#endif
