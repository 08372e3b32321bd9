/* Uploads from host memory to the device through a ring of pinned memory. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"

enum {
  SLOTS = 4,
  SLOT_BYTES = 2 << 20,
  SMALL_BYTES = 64 << 10, /* what a kernel fetches faster than a copy engine wakes up */
  LINE = 256,
};

typedef struct Slot {
  uint8_t *memory;
  cudaEvent_t read; /* the device has read all that was put here */
  bool recorded;
} Slot;

struct NitiStaging {
  Slot slots[SLOTS];
  int at;
  size_t used; /* of slots[at] */
};

NitiStatus niti_staging_open(NitiStaging **out) {
  NitiStaging *staging = calloc(1, sizeof *staging);
  cudaError_t error = cudaSuccess;
  *out = staging;
  if (!staging) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the CUDA backend");
  for (int i = 0; i < SLOTS && error == cudaSuccess; ++i) {
    void *memory = NULL;
    error = niti_cuda_runtime.cudaMallocHost(&memory, SLOT_BYTES);
    staging->slots[i].memory = memory;
    if (error == cudaSuccess) error = niti_cuda_runtime.cudaEventCreateWithFlags(&staging->slots[i].read, cudaEventDisableTiming);
  }
  if (error == cudaSuccess) return NITI_OK;
  (void)niti_cuda_runtime.cudaGetLastError(); /* reported here */
  const bool memory = error == cudaErrorMemoryAllocation;
  return niti_fail(memory ? NITI_ERROR_MEMORY : NITI_ERROR_DEVICE,
                   "cuda: %d bytes of pinned memory asked for to copy through: %s", SLOTS * SLOT_BYTES,
                   cudaGetErrorString(error));
}

void niti_staging_close(NitiStaging *staging) {
  if (!staging) return;
  for (int i = 0; i < SLOTS; ++i) {
    if (staging->slots[i].read) (void)niti_cuda_runtime.cudaEventDestroy(staging->slots[i].read);
    if (staging->slots[i].memory) (void)niti_cuda_runtime.cudaFreeHost(staging->slots[i].memory);
  }
  free(staging);
}

/* Room in the slot at hand, or in the next one as soon as the device has done with that. */
static uint8_t *take(NitiCuda *cuda, size_t bytes) {
  NitiStaging *s = cuda->staging;
  const size_t room = (bytes + LINE - 1) / LINE * LINE;
  if (s->used + room > SLOT_BYTES) {
    Slot *full = &s->slots[s->at];
    niti_cuda_note(cuda, niti_cuda_runtime.cudaEventRecord(full->read, cuda->stream), "recording an event");
    full->recorded = true;
    s->at = (s->at + 1) % SLOTS;
    s->used = 0;
    if (s->slots[s->at].recorded)
      niti_cuda_note(cuda, niti_cuda_runtime.cudaEventSynchronize(s->slots[s->at].read), "waiting for an upload");
  }
  uint8_t *memory = s->slots[s->at].memory + s->used;
  s->used += room;
  return memory;
}

void niti_staging_upload(NitiCuda *cuda, void *to, const void *host, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const size_t part = bytes - done < SLOT_BYTES ? bytes - done : SLOT_BYTES;
    uint8_t *pinned = take(cuda, part), *there = (uint8_t *)to + done;
    memcpy(pinned, (const uint8_t *)host + done, part);
    if (part <= SMALL_BYTES) {
      niti_cuda_upload_small(cuda, there, pinned, part);
    } else {
      niti_cuda_note(cuda, niti_cuda_runtime.cudaMemcpyAsync(there, pinned, part, cudaMemcpyHostToDevice, cuda->stream),
                     "an upload");
    }
    done += part;
  }
}
