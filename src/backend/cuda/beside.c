/* Work beside the stream's: a second stream that a recording forks into and joins again. Work that is not recorded runs in order.
 */
#include "backend/cuda/cuda.h"

NitiStatus niti_cuda_beside_open(NitiCuda *cuda) {
  NitiCudaBeside *b = &cuda->beside;
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamCreateWithFlags(&b->side, cudaStreamNonBlocking), "making a stream");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaEventCreateWithFlags(&b->reached, cudaEventDisableTiming), "making an event");
  for (int i = 0; i <= NITI_BESIDE_WINDOW; ++i)
    niti_cuda_note(cuda, niti_cuda_runtime.cudaEventCreateWithFlags(&b->ended[i], cudaEventDisableTiming), "making an event");
  return niti_cuda_status(cuda);
}

void niti_cuda_beside_close(NitiCuda *cuda) {
  for (int i = 0; i <= NITI_BESIDE_WINDOW; ++i) {
    if (cuda->beside.ended[i]) (void)niti_cuda_runtime.cudaEventDestroy(cuda->beside.ended[i]);
  }
  if (cuda->beside.reached) (void)niti_cuda_runtime.cudaEventDestroy(cuda->beside.reached);
  if (cuda->beside.side) (void)niti_cuda_runtime.cudaStreamDestroy(cuda->beside.side);
}

static cudaEvent_t *end_of(NitiCudaBeside *b, int32_t stretch) { return &b->ended[stretch % (NITI_BESIDE_WINDOW + 1)]; }

void niti_cuda_begin_aside(NitiBackend *backend) {
  NitiCuda *cuda = niti_cuda(backend);
  NitiCudaBeside *b = &cuda->beside;
  if (!b->recording) return;
  niti_cuda_note(cuda, niti_cuda_runtime.cudaEventRecord(b->reached, cuda->stream), "recording an event");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamWaitEvent(b->side, b->reached, 0), "waiting for an event");
  b->main = cuda->stream;
  b->overlap = cuda->overlap;
  cuda->stream = b->side;
  cuda->overlap = false; /* a kernel here follows two */
  b->pending = true;
}

void niti_cuda_end_aside(NitiBackend *backend) {
  NitiCuda *cuda = niti_cuda(backend);
  NitiCudaBeside *b = &cuda->beside;
  if (!b->recording) return;
  niti_cuda_note(cuda, niti_cuda_runtime.cudaEventRecord(*end_of(b, b->stretches++), b->side), "recording an event");
  cuda->stream = b->main;
  cuda->overlap = b->overlap;
}

void niti_cuda_rejoin(NitiBackend *backend, int32_t rest) {
  NitiCuda *cuda = niti_cuda(backend);
  NitiCudaBeside *b = &cuda->beside;
  if (!b->recording) return;
  const cudaEvent_t last = *end_of(b, b->stretches - 1 - rest);
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamWaitEvent(cuda->stream, last, 0), "waiting for an event");
  b->pending = rest > 0;
  b->joined = true;
}
