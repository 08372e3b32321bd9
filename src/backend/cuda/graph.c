/* A step's operations recorded once as a CUDA graph and launched as one: the host then spends microseconds on a step. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"

enum {
  ENTRIES = 16, /* training and testing, whole and last batches, a few learning rates */
  QUEUE = 2,    /* steps that may be under way or waiting */
};

typedef enum State { EMPTY = 0, SEEN, RECORDED, PLAIN } State;

typedef struct Entry {
  NitiReplayKey key;
  State state;
  uint64_t used; /* when */
  cudaGraphExec_t exec;
} Entry;

struct NitiGraphs {
  Entry entries[ENTRIES];
  cudaEvent_t ends[QUEUE]; /* of the last steps */
  uint64_t count;          /* of steps */
};

NitiStatus niti_graphs_open(NitiGraphs **out) {
  NitiGraphs *graphs = calloc(1, sizeof *graphs);
  *out = graphs;
  if (!graphs) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the CUDA backend");
  for (int i = 0; i < QUEUE; ++i) {
    const cudaError_t error = cudaEventCreateWithFlags(&graphs->ends[i], cudaEventDisableTiming);
    if (error != cudaSuccess) return niti_fail(NITI_ERROR_DEVICE, "cuda: making an event: %s", cudaGetErrorString(error));
  }
  return NITI_OK;
}

static void empty(Entry *entry) {
  if (entry->exec) (void)cudaGraphExecDestroy(entry->exec);
  memset(entry, 0, sizeof *entry);
}

void niti_graphs_clear(NitiGraphs *graphs) {
  if (!graphs) return;
  for (int i = 0; i < ENTRIES; ++i) empty(&graphs->entries[i]);
}

void niti_graphs_close(NitiGraphs *graphs) {
  if (!graphs) return;
  niti_graphs_clear(graphs);
  for (int i = 0; i < QUEUE; ++i) {
    if (graphs->ends[i]) (void)cudaEventDestroy(graphs->ends[i]);
  }
  free(graphs);
}

static bool same(const NitiReplayKey *a, const NitiReplayKey *b) {
  for (size_t i = 0; i < sizeof a->pointers / sizeof *a->pointers; ++i) {
    if (a->pointers[i] != b->pointers[i]) return false;
  }
  return memcmp(a->numbers, b->numbers, sizeof a->numbers) == 0;
}

/* The key's entry, or in the place of the one unused for longest a fresh one. */
static Entry *find(NitiCuda *cuda, const NitiReplayKey *key) {
  NitiGraphs *graphs = cuda->graphs;
  Entry *oldest = &graphs->entries[0];
  for (int i = 0; i < ENTRIES; ++i) {
    Entry *entry = &graphs->entries[i];
    if (entry->state != EMPTY && same(&entry->key, key)) return entry;
    if (entry->used < oldest->used) oldest = entry;
  }
  if (oldest->exec) niti_cuda_note(cuda, cudaStreamSynchronize(cuda->stream), "work on the device"); /* it may still run */
  empty(oldest);
  oldest->key = *key;
  return oldest;
}

/* Records what enqueue does; nothing runs. Where that fails the work stays unrecorded for good, and no failure is kept. */
static void record(NitiCuda *cuda, Entry *entry, void (*enqueue)(void *), void *context) {
  cudaGraph_t graph = NULL;
  entry->state = PLAIN;
  if (!entry->key.steady) niti_twins_clear(cuda->twins); /* the recorded work must make whatever it needs */
  if (cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeRelaxed) != cudaSuccess) {
    (void)cudaGetLastError();
    return;
  }
  enqueue(context);
  const cudaError_t enqueued = cuda->error, ended = cudaStreamEndCapture(cuda->stream, &graph);
  if (enqueued == cudaSuccess && ended == cudaSuccess && cudaGraphInstantiate(&entry->exec, graph, 0) == cudaSuccess) {
    entry->state = RECORDED;
  } else {
    (void)cudaGetLastError();
    cuda->error = cudaSuccess; /* there was none before: niti_graphs_replay looked; a real one will come again */
    cuda->failed = NULL;
    entry->exec = NULL;
    niti_twins_clear(cuda->twins);
  }
  if (graph) (void)cudaGraphDestroy(graph);
}

static void run(NitiCuda *cuda, Entry *entry, void (*enqueue)(void *), void *context) {
  if (entry->state == SEEN) record(cuda, entry, enqueue, context);
  if (entry->state == RECORDED) {
    niti_cuda_note(cuda, cudaGraphLaunch(entry->exec, cuda->stream), "launching a recorded step");
    if (!entry->key.steady) niti_twins_clear(cuda->twins); /* which of them the graph wrote is not known here */
    return;
  }
  enqueue(context);
  if (entry->state == EMPTY) entry->state = SEEN; /* by now every kernel of it is loaded, so it can be recorded */
}

NitiStatus niti_graphs_replay(NitiCuda *cuda, const NitiReplayKey *key, void (*enqueue)(void *), void *context) {
  NitiGraphs *graphs = cuda->graphs;
  const uint64_t number = graphs->count++;
  cudaEvent_t end = graphs->ends[number % QUEUE];
  if (number >= QUEUE) niti_cuda_note(cuda, cudaEventSynchronize(end), "a step");
  if (cuda->error != cudaSuccess) return niti_cuda_status(cuda);
  Entry *entry = find(cuda, key);
  entry->used = number + 1;
  run(cuda, entry, enqueue, context);
  niti_cuda_note(cuda, cudaEventRecord(end, cuda->stream), "recording an event");
  return niti_cuda_status(cuda);
}
