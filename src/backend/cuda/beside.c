/* Work beside the stream's: a second stream that a recording forks into and joins again. Work that is not recorded runs in order.
 */
#include "backend/cuda/cuda.h"

NitiStatus niti_cuda_beside_open(NitiCuda *cuda) {
  NitiCudaBeside *b = &cuda->beside;
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamCreateWithFlags(&b->side, cudaStreamNonBlocking), "making a stream");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaEventCreateWithFlags(&b->reached, cudaEventDisableTiming), "making an event");
  return niti_cuda_status(cuda);
}

void niti_cuda_beside_close(NitiCuda *cuda) {
  if (cuda->beside.reached) (void)niti_cuda_runtime.cudaEventDestroy(cuda->beside.reached);
  if (cuda->beside.side) (void)niti_cuda_runtime.cudaStreamDestroy(cuda->beside.side);
}

/* What is enqueued from now on in `later` follows what is in `before`. */
static void follow(NitiCuda *cuda, cudaStream_t later, cudaStream_t before) {
  niti_cuda_note(cuda, niti_cuda_runtime.cudaEventRecord(cuda->beside.reached, before), "recording an event");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamWaitEvent(later, cuda->beside.reached, 0), "waiting for an event");
}

void niti_cuda_begin_aside(NitiBackend *backend) {
  NitiCuda *cuda = niti_cuda(backend);
  NitiCudaBeside *b = &cuda->beside;
  if (!b->recording) return;
  follow(cuda, b->side, cuda->stream);
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
  cuda->stream = b->main;
  cuda->overlap = b->overlap;
}

void niti_cuda_rejoin(NitiBackend *backend) {
  NitiCuda *cuda = niti_cuda(backend);
  NitiCudaBeside *b = &cuda->beside;
  if (!b->recording) return;
  follow(cuda, cuda->stream, b->side);
  b->pending = false;
  b->joined = true;
}
