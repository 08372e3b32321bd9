/* Ranks that NCCL connects (backend/cuda/nccl.c), on no device and without NCCL: functions that take their places, of which each
 * fails in turn. Once they are connected, every kind of exchange has been made and waited for, on each communicator. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */
#include <nccl.h>

#include "backend/cuda/nccl.h"
#include "fail_call.h"

enum { EVENTS = 64, RANKS = 3 };

typedef struct Event {
  char what;         /* 'o': a communicator is opened, 'e': an exchange, 's': a stream is waited for, 'f': memory is freed */
  const void *where; /* the communicator, or the stream */
  const void *stream;
  size_t count;
  ncclDataType_t type;
  ncclRedOp_t op;
} Event;

static Event events[EVENTS];
static int event_count, left, agreed; /* left: pieces of memory; agreed: questions */
static bool other_failed, leads = true;
static char opened[4], backend_stream, side_stream, an_event; /* their addresses */

static void add(Event event) {
  assert_true(event_count < EVENTS);
  events[event_count++] = event;
}

/* ---- CUDA ---- */

static cudaError_t fake_set_device(int device) {
  assert_int_equal(device, 5);
  return meet("cudaSetDevice");
}

static cudaError_t fake_stream_create(cudaStream_t *out, unsigned flags) {
  assert_int_equal(flags, cudaStreamNonBlocking);
  if (meet("cudaStreamCreateWithFlags") != cudaSuccess) return cudaErrorUnknown;
  *out = (cudaStream_t)(void *)&side_stream;
  return cudaSuccess;
}

static cudaError_t fake_event_create(cudaEvent_t *out, unsigned flags) {
  (void)flags;
  if (meet("cudaEventCreateWithFlags") != cudaSuccess) return cudaErrorUnknown;
  *out = (cudaEvent_t)(void *)&an_event;
  return cudaSuccess;
}

static cudaError_t fake_malloc(void **out, size_t size) {
  if (meet("cudaMalloc") != cudaSuccess) return cudaErrorUnknown;
  *out = malloc(size);
  ++left;
  return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}

static cudaError_t fake_free(void *p) {
  add((Event){.what = 'f'});
  free(p);
  --left;
  return meet("cudaFree");
}

static cudaError_t fake_memset(void *to, int value, size_t size, cudaStream_t stream) {
  assert_ptr_equal(stream, &backend_stream);
  memset(to, value, size);
  return meet("cudaMemsetAsync");
}

static cudaError_t fake_synchronize(cudaStream_t stream) {
  add((Event){.what = 's', .where = stream});
  return meet("cudaStreamSynchronize");
}

static cudaError_t fake_stream_destroy(cudaStream_t stream) {
  assert_ptr_equal(stream, &side_stream);
  return cudaSuccess;
}

static cudaError_t fake_event_destroy(cudaEvent_t event) {
  assert_ptr_equal(event, &an_event);
  return cudaSuccess;
}

const NitiCudaRuntime niti_cuda_runtime = {.cudaSetDevice = fake_set_device,
                                           .cudaStreamCreateWithFlags = fake_stream_create,
                                           .cudaStreamDestroy = fake_stream_destroy,
                                           .cudaEventCreateWithFlags = fake_event_create,
                                           .cudaEventDestroy = fake_event_destroy,
                                           .cudaMalloc = fake_malloc,
                                           .cudaFree = fake_free,
                                           .cudaMemsetAsync = fake_memset,
                                           .cudaStreamSynchronize = fake_synchronize};

void niti_cuda_note(NitiCuda *cuda, cudaError_t error, const char *what) {
  if (error == cudaSuccess || cuda->error != cudaSuccess) return;
  cuda->error = error;
  cuda->failed = what;
}

NitiStatus niti_cuda_status(const NitiCuda *cuda) {
  return cuda->error == cudaSuccess ? NITI_OK : niti_fail(NITI_ERROR_DEVICE, "%s", cuda->failed);
}

/* ---- NCCL ---- */

static ncclResult_t fake_get_id(ncclUniqueId *id) {
  memset(id, 7, sizeof *id);
  return fails("ncclGetUniqueId") ? ncclSystemError : ncclSuccess;
}

static ncclResult_t fake_open(ncclComm_t *out, int ranks, ncclUniqueId id, int rank) {
  static int count;
  assert_true(ranks == RANKS && rank == (leads ? 0 : 1) && id.internal[0] == 7);
  if (fails("ncclCommInitRank")) return ncclSystemError;
  *out = (ncclComm_t)(void *)&opened[count++ % (int)sizeof opened];
  add((Event){.what = 'o', .where = *out});
  return ncclSuccess;
}

static ncclResult_t fake_all_reduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t in,
                                    cudaStream_t stream) {
  const size_t bytes = count * (type == ncclInt64 ? 8 : 4);
  assert_ptr_equal(from, to);
  assert_true(left > 0);
  for (size_t i = 0; i < bytes; i += 4096) assert_int_equal(((const char *)from)[i], 0);
  add((Event){'e', in, stream, count, type, op});
  return fails("ncclAllReduce") ? ncclSystemError : ncclSuccess;
}

static ncclResult_t fake_group(void) { return ncclSuccess; }

static int aborted;

static ncclResult_t fake_abort(ncclComm_t comm) {
  assert_true((void *)comm >= (void *)opened && (void *)comm < (void *)(opened + sizeof opened));
  ++aborted;
  return ncclSuccess;
}

static const char *fake_describe(ncclResult_t result) {
  (void)result;
  return "as it was told";
}

void *__wrap_dlopen(const char *name, int flags);
void *__wrap_dlsym(void *library, const char *name);
int __wrap_dlclose(void *library);

void *__wrap_dlopen(const char *name, int flags) {
  (void)flags;
  assert_string_equal(name, "libnccl.so.2");
  return &events;
}

void *__wrap_dlsym(void *library, const char *name) {
  static const struct {
    const char *name;
    void (*function)(void);
  } functions[] = {{"ncclGetUniqueId", (void (*)(void))fake_get_id},     {"ncclCommInitRank", (void (*)(void))fake_open},
                   {"ncclAllReduce", (void (*)(void))fake_all_reduce},   {"ncclGroupStart", (void (*)(void))fake_group},
                   {"ncclGroupEnd", (void (*)(void))fake_group},         {"ncclCommAbort", (void (*)(void))fake_abort},
                   {"ncclGetErrorString", (void (*)(void))fake_describe}};
  assert_ptr_equal(library, &events);
  for (size_t i = 0; i < sizeof functions / sizeof *functions; ++i) {
    void *found;
    memcpy(&found, &functions[i].function, sizeof found);
    if (strcmp(functions[i].name, name) == 0) return found;
  }
  return NULL;
}

int __wrap_dlclose(void *library) {
  assert_ptr_equal(library, &events);
  return 0;
}

/* ---- the ranks ---- */

int niti_ranks_rank(const NitiRanks *r) { return r ? 0 : leads ? 0 : 1; }
int niti_ranks_size(const NitiRanks *r) { return r ? 0 : RANKS; }
bool niti_ranks_lead(const NitiRanks *r) { return !r && leads; }

NitiStatus niti_ranks_broadcast(NitiRanks *r, void *data, size_t bytes) {
  assert_null(r);
  if (!leads) memset(data, 7, bytes);
  return NITI_OK;
}

NitiStatus niti_ranks_agree(NitiRanks *r, NitiStatus status) {
  assert_null(r);
  ++agreed;
  return other_failed ? niti_fail(NITI_ERROR_MEMORY, "another rank") : status;
}

/* ---- the cases ---- */

/* Connects and closes. */
static NitiStatus connect(bool after, int fail) {
  NitiSums sums = {0};
  NitiCuda cuda = {.device = 5, .stream = (cudaStream_t)(void *)&backend_stream, .sums = after ? &sums : NULL};
  event_count = call_count = agreed = aborted = 0;
  fail_at = fail;
  met = NULL;
  cuda.nccl = niti_nccl_load();
  assert_non_null(cuda.nccl);
  const NitiStatus status = niti_nccl_connect(&cuda, NULL, cuda.nccl);
  assert_int_equal(left, 0);
  assert_int_equal(agreed, 1);
  niti_nccl_close(cuda.nccl);
  return status;
}

static int count_events(char what) {
  int count = 0;
  for (int i = 0; i < event_count; ++i) count += events[i].what == what;
  return count;
}

/* On a communicator: maxima and sums of a few values, and large sums of both types, all in one stream that is waited for before
 * memory is freed. */
static void check_exchanges(const void *communicator, const void *stream) {
  bool max = false, few = false, narrow = false, wide = false;
  int last = -1, waited = -1, freed = -1;
  for (int i = 0; i < event_count; ++i) {
    const Event *e = &events[i];
    if (e->what == 'f') freed = i;
    if (e->what == 's' && e->where == stream) waited = i;
    if (e->what != 'e' || e->where != communicator) continue;
    assert_ptr_equal(e->stream, stream);
    last = i;
    max = max || (e->type == ncclUint32 && e->op == ncclMax && e->count == 1);
    few = few || (e->type == ncclInt64 && e->op == ncclSum && e->count < 10);
    narrow = narrow || (e->type == ncclInt32 && e->op == ncclSum && e->count >= 1 << 20);
    wide = wide || (e->type == ncclInt64 && e->op == ncclSum && e->count >= 1 << 19);
  }
  assert_true(max && few && narrow && wide);
  assert_true(last < waited && waited < freed);
}

static void test_ranks_that_are_connected_have_exchanged(void **state) {
  (void)state;
  for (int i = 0; i < 4; ++i) {
    const void *streams[] = {&backend_stream, &side_stream};
    const bool after = i % 2;
    int at = 0;
    leads = i < 2;
    assert_int_equal(connect(after, 0), NITI_OK);
    assert_int_equal(count_events('o'), after ? 1 : 2);
    assert_int_equal(aborted, after ? 1 : 2);
    for (int k = 0; k < event_count; ++k) {
      if (events[k].what == 'o') check_exchanges(events[k].where, streams[at++]);
    }
  }
  leads = true;
}

static void test_each_call_fails_in_turn(void **state) {
  (void)state;
  for (int after = 0; after < 2; ++after) {
    assert_int_equal(connect(after, 0), NITI_OK);
    const int calls = call_count;
    assert_true(calls > 10);
    for (int at = 1; at <= calls; ++at) {
      if (connect(after, at) == NITI_OK) fail_msg("%s failed unnoticed", met);
      assert_non_null(met);
      assert_int_equal(aborted, count_events('o'));
      if (strncmp(met, "nccl", 4) == 0) assert_non_null(strstr(niti_error(), "as it was told"));
    }
  }
}

/* Connecting waits for all ranks: none begins where one could not prepare it. */
static void test_nobody_connects_where_another_rank_has_failed(void **state) {
  (void)state;
  other_failed = true;
  assert_int_equal(connect(true, 0), NITI_ERROR_MEMORY);
  assert_string_equal(niti_error(), "another rank");
  assert_int_equal(count_events('o') + count_events('e'), 0);
  other_failed = false;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_ranks_that_are_connected_have_exchanged),
                                     cmocka_unit_test(test_each_call_fails_in_turn),
                                     cmocka_unit_test(test_nobody_connects_where_another_rank_has_failed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
