/* Small exchanges between ranks by one block, through mailboxes in the memory of their devices (mailbox.h). */
#include "backend/cuda/device.cuh"
#include "backend/cuda/peers.h"

enum { THREADS = 1024, WARP = 32 };

/* All threads send all their elements before any waits. */
template <NitiReduction REDUCTION, bool PROMISES>
static __global__ void __launch_bounds__(THREADS) exchange_kernel(NitiMailboxes m, void *data, uint32_t count) {
  niti_kernel_begin();
  const uint32_t number = niti_mailbox_next(*m.number);
  __syncthreads(); /* all have read it */
  if (threadIdx.x == 0) *m.number = number;
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) niti_mailbox_put(&m, number, data, count, i, REDUCTION, PROMISES);
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
    while (!niti_mailbox_take(&m, number, data, count, i, REDUCTION, PROMISES)) {
    }
  }
}

static unsigned threads_for(size_t count) {
  const unsigned wanted = ((unsigned)count + WARP - 1) / WARP * WARP;
  return wanted < THREADS ? wanted : (unsigned)THREADS;
}

extern "C" void niti_cuda_mailbox_exchange(NitiCuda *cuda, const NitiMailboxes *m, void *data, size_t count,
                                           NitiReduction reduction) {
  if (reduction == NITI_REDUCE_MAX_U32)
    NITI_LAUNCH(cuda, (exchange_kernel<NITI_REDUCE_MAX_U32, false>), 1, threads_for(count), 0, *m, data, (uint32_t)count);
  else
    NITI_LAUNCH(cuda, (exchange_kernel<NITI_REDUCE_SUM_S64, false>), 1, threads_for(count), 0, *m, data, (uint32_t)count);
}

extern "C" void niti_cuda_mailbox_promise(NitiCuda *cuda, const NitiMailboxes *m, int64_t *sums, size_t count) {
  const bool overlap = cuda->overlap;
  cuda->overlap = false; /* it may not begin before what it promises has ended, kernels and copies alike */
  NITI_LAUNCH(cuda, (exchange_kernel<NITI_REDUCE_SUM_S64, true>), 1, threads_for(count), 0, *m, (void *)sums, (uint32_t)count);
  cuda->overlap = overlap;
}
