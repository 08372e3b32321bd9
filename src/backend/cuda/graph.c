/* Ranges of a program recorded once as CUDA graphs and launched as one: the host then spends microseconds on a step. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"

enum {
  ENTRIES = 8, /* of one executable: whole and last batches, resident and streamed images */
  QUEUE = 2,   /* runs that may be under way or waiting */
  SHORT = 2,   /* operations: fewer are enqueued as they are, unless they are repeated */
};

typedef enum State { EMPTY = 0, SEEN, RECORDED, PLAIN } State;

typedef struct Entry {
  NitiRecordingKey key;
  State state;
  uint64_t used, generation;
  cudaGraphExec_t exec;
} Entry;

typedef struct Recordings {
  Entry entries[ENTRIES];
} Recordings;

struct NitiQueue {
  cudaEvent_t ends[QUEUE]; /* of the last runs */
  uint64_t count;          /* of runs */
};

NitiStatus niti_queue_open(NitiQueue **out) {
  NitiQueue *queue = *out = calloc(1, sizeof *queue);
  if (!queue) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the CUDA backend");
  for (int i = 0; i < QUEUE; ++i) {
    const cudaError_t error = niti_cuda_runtime.cudaEventCreateWithFlags(&queue->ends[i], cudaEventDisableTiming);
    if (error != cudaSuccess) return niti_fail(NITI_ERROR_DEVICE, "cuda: making an event: %s", cudaGetErrorString(error));
  }
  return NITI_OK;
}

void niti_queue_close(NitiQueue *queue) {
  if (!queue) return;
  for (int i = 0; i < QUEUE; ++i) {
    if (queue->ends[i]) (void)niti_cuda_runtime.cudaEventDestroy(queue->ends[i]);
  }
  free(queue);
}

static void empty(Entry *entry) {
  if (entry->exec) (void)niti_cuda_runtime.cudaGraphExecDestroy(entry->exec);
  memset(entry, 0, sizeof *entry);
}

void niti_cuda_close_recordings(NitiBackend *backend, void *recordings) {
  NitiCuda *cuda = niti_cuda(backend);
  Recordings *r = recordings;
  niti_cuda_note(cuda, niti_cuda_runtime.cudaSetDevice(cuda->device), "choosing the device");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamSynchronize(cuda->stream), "work on the device"); /* they may still run */
  for (int i = 0; i < ENTRIES; ++i) empty(&r->entries[i]);
  free(r);
}

static bool same(const NitiRecordingKey *a, const NitiRecordingKey *b) {
  return a->first == b->first && a->end == b->end && a->batch == b->batch && a->repeat == b->repeat && a->pixels == b->pixels &&
         a->source.h == b->source.h && a->source.w == b->source.w && a->source.c == b->source.c && a->marks == b->marks &&
         a->whole == b->whole && a->part == b->part && a->idle == b->idle && a->ahead == b->ahead;
}

/* The key's entry, or in the place of the one unused for longest a fresh one. */
static Entry *find(NitiCuda *cuda, Recordings *r, const NitiRecordingKey *key) {
  Entry *oldest = &r->entries[0];
  for (int i = 0; i < ENTRIES; ++i) {
    Entry *entry = &r->entries[i];
    if (entry->state != EMPTY && entry->generation == cuda->generation && same(&entry->key, key)) return entry;
    if (entry->used < oldest->used) oldest = entry;
  }
  if (oldest->exec)
    niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamSynchronize(cuda->stream), "work on the device"); /* it may still run */
  empty(oldest);
  oldest->key = *key;
  oldest->generation = cuda->generation;
  return oldest;
}

/* Records what enqueue does; nothing runs. Where that fails the work stays unrecorded for good, and no failure is kept. So does
 * work with a part of the sums over all ranks that one wait ends: what comes before it or after it could not know of the rest. */
static void record(NitiCuda *cuda, Entry *entry, void (*enqueue)(void *), void *context) {
  cudaGraph_t graph = NULL;
  entry->state = PLAIN;
  if (niti_cuda_has_sums(cuda)) return;
  niti_layouts_clear(cuda->layouts); /* the recorded work must make whatever it needs */
  if (niti_cuda_runtime.cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeRelaxed) != cudaSuccess) {
    (void)niti_cuda_runtime.cudaGetLastError();
    return;
  }
  cuda->beside.recording = true;
  enqueue(context);
  cuda->beside.recording = cuda->beside.pending = cuda->beside.joined = false;
  const cudaError_t enqueued = cuda->error, ended = niti_cuda_runtime.cudaStreamEndCapture(cuda->stream, &graph);
  if (enqueued == cudaSuccess && ended == cudaSuccess && !niti_cuda_has_sums(cuda) &&
      niti_cuda_runtime.cudaGraphInstantiate(&entry->exec, graph, 0) == cudaSuccess) {
    entry->state = RECORDED;
  } else {
    (void)niti_cuda_runtime.cudaGetLastError();
    cuda->error = cudaSuccess; /* there was none before: niti_cuda_replay looked; a real one will come again */
    cuda->failed = NULL;
    entry->exec = NULL;
    niti_layouts_clear(cuda->layouts);
    niti_cuda_drop_sums(cuda);
  }
  if (graph) (void)niti_cuda_runtime.cudaGraphDestroy(graph);
}

static void run(NitiCuda *cuda, Entry *entry, void (*enqueue)(void *), void *context) {
  if (entry->state == SEEN) record(cuda, entry, enqueue, context);
  if (entry->state == RECORDED) {
    niti_cuda_note(cuda, niti_cuda_runtime.cudaGraphLaunch(entry->exec, cuda->stream), "launching a recorded step");
    niti_layouts_clear(cuda->layouts); /* which of them the graph wrote is not known here */
    return;
  }
  enqueue(context);
  if (entry->state == EMPTY) entry->state = SEEN; /* by now every kernel of it is loaded, so it can be recorded */
}

NitiStatus niti_cuda_replay(NitiBackend *backend, void **recordings, const NitiRecordingKey *key, void (*enqueue)(void *),
                            void *context) {
  NitiCuda *cuda = niti_cuda(backend);
  NitiQueue *queue = cuda->queue;
  const uint64_t number = queue->count++;
  cudaEvent_t end = queue->ends[number % QUEUE];
  niti_cuda_note(cuda, niti_cuda_runtime.cudaSetDevice(cuda->device), "choosing the device");
  if (number >= QUEUE) niti_cuda_note(cuda, niti_cuda_runtime.cudaEventSynchronize(end), "a step");
  niti_cuda_set_clock(cuda); /* no recording's affair */
  if (cuda->error != cudaSuccess) return niti_cuda_status(cuda);
  if (!*recordings && !(*recordings = calloc(1, sizeof(Recordings))))
    return niti_fail(NITI_ERROR_MEMORY, "out of memory for the CUDA backend");
  const bool staged = key->whole > 0 && !cuda->nccl; /* sums pass through the host, which a recording cannot do */
  if (staged || (key->end - key->first < SHORT && key->repeat < SHORT)) {
    enqueue(context);
  } else {
    Entry *entry = find(cuda, *recordings, key);
    entry->used = number + 1;
    run(cuda, entry, enqueue, context);
  }
  niti_cuda_note(cuda, niti_cuda_runtime.cudaEventRecord(end, cuda->stream), "recording an event");
  return niti_cuda_status(cuda);
}
